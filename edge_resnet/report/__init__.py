"""The report of a build: one HTML file that says whether to trust a bundle, and shows why.

It holds everything it shows, asks nothing of a network, and runs no script. Needs the extra ``build``.
"""
