"""python3 -m plotting LOGDIR --out DIR: draws every figure that LOGDIR holds logs for."""

import sys

from plotting.main import main

sys.exit(main(sys.argv[1:]))
