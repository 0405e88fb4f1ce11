"""``edge-resnet devices``."""

from __future__ import annotations

from edge_resnet.cli._console import JsonFlag, print_json, print_table, say


def run(json: JsonFlag = False) -> None:
    """Lists the targets, and which of them this machine is, can compile for and run; on a Jetson, what its JetPack brings.

    Example: `edge-resnet devices`
    """
    from edge_resnet.devices import device_statuses

    statuses = device_statuses()
    if json:
        print_json([status.to_json() for status in statuses])
        return
    print_table(
        None,
        ("", "target", "engine", "precisions", "compile", "run", "why not"),
        [
            (
                "→" if status.this else "",
                status.target.name,
                status.target.kind,
                " ".join(status.target.precisions),
                "yes" if status.why_not_compile is None else "no",
                "yes" if status.why_not_run is None else "no",
                status.instead or status.why_not,
            )
            for status in statuses
        ],
    )
    say("→ is what this machine has")
    print_table(
        "Devices that `edge-resnet estimate` knows",
        ("device", "for", "GB", "SM", "DLAs", "power modes, the fastest first"),
        [
            (
                module.name,
                status.target.name,
                module.memory_gb,
                module.sm,
                status.target.dla_cores,
                " ".join(mode.name for mode in module.modes),
            )
            for status in statuses
            for module in status.modules
        ],
    )
    for found in (status.jetpack for status in statuses if status.jetpack is not None):
        say(
            f"JetPack {found.version} (Jetson Linux {found.l4t}): "
            f"TensorRT {found.tensorrt}, CUDA {found.cuda}, Python {found.python}"
        )
