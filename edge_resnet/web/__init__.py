"""A live classification as a page on localhost, for a headless device that is watched from another machine's browser.

    with Classifier("model.edge") as classify, open_camera("csi://0") as camera:
        board = Board(classify, camera)
        with serving(board, Address()) as url:
            for view in watch(classify, camera):
                board.put(view)

Needs starlette and uvicorn, the extra ``web``. The loop only leaves what it found, without waiting for anybody: pictures,
FP32 and browsers have threads of their own, and the first two stand back behind it.
"""
