"""Where the targets of a build are compiled: here, one after the other, or each on a device of its own.

    Farm         this process
    └── RayFarm  workers of a Ray cluster that offer a target's name as a resource; what none offers, this process

The line stays where it is: weights, images, calibration and refinement are this process's. A worker gets a graph, gives
an engine back, and answers frames with it.
"""
