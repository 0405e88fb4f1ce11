"""An RTSP server for the camera's tests, by Debian's GStreamer; run by the system's Python, which has its bindings.

    python3 rtsp_server.py PORT PATTERN [tcp|udp]

Serves rtsp://127.0.0.1:PORT/live: H.264, 320×240, 30 frames a second, of a pattern that videotestsrc knows,
and by one transport alone where it is named.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions are chosen first

PIPELINE = (
    "( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency key-int-max=15 speed-preset=ultrafast ! rtph264pay name=pay0 pt=96 )"
)

TRANSPORTS = {"tcp": GstRtsp.RTSPLowerTrans.TCP, "udp": GstRtsp.RTSPLowerTrans.UDP}

Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch(PIPELINE.format(pattern=sys.argv[2]))
factory.set_shared(True)
for transport in sys.argv[3:]:
    factory.set_protocols(TRANSPORTS[transport])
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
