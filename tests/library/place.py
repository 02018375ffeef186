"""The library from Python, without bindings: loads in, EPLB's phy2log out.

    python3 place.py libballast.so 8 2 600 560 120 120 20 10 10 10
"""
import ctypes
import sys


class Shape(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint64), ("layers", ctypes.c_int32), ("experts", ctypes.c_int32), ("ranks", ctypes.c_int32),
                ("slots", ctypes.POINTER(ctypes.c_int32)), ("speed", ctypes.POINTER(ctypes.c_double)),
                ("home", ctypes.POINTER(ctypes.c_int32))]


def load_library(path):
    library = ctypes.CDLL(path)
    library.ballast_message.restype = ctypes.c_char_p
    library.ballast_message.argtypes = [ctypes.c_void_p]
    return library


def place(library, loads, ranks, slots, rule="ballast"):
    """phy2log and shares, a list for every rank; the imbalance."""
    handle, placement = ctypes.c_void_p(), ctypes.c_void_p()
    if library.ballast_open(1, ctypes.byref(handle)):
        raise RuntimeError("the library is of another version")
    try:
        shape = Shape(ctypes.sizeof(Shape), 1, len(loads), ranks, (ctypes.c_int32 * ranks)(*[slots] * ranks), None, None)
        array = (ctypes.c_double * len(loads))(*loads)
        if library.ballast_place(handle, ctypes.byref(shape), rule.encode(), array, ctypes.byref(placement)):
            raise ValueError(library.ballast_message(handle).decode())
        phy2log, share = (ctypes.c_int32 * (ranks * slots))(), (ctypes.c_double * (ranks * slots))()
        imbalance = ctypes.c_double()
        library.ballast_placement_phy2log(placement, 0, phy2log, share)
        library.ballast_placement_imbalance(placement, 0, ctypes.byref(imbalance), None)
        rows = range(0, ranks * slots, slots)
        return [phy2log[i:i + slots] for i in rows], [share[i:i + slots] for i in rows], imbalance.value
    finally:
        library.ballast_placement_free(placement)
        library.ballast_close(handle)


if __name__ == "__main__":
    experts, _, reached = place(load_library(sys.argv[1]), [float(x) for x in sys.argv[4:]], int(sys.argv[2]), int(sys.argv[3]))
    print(experts, f"imbalance {reached:.6f}")
