"""``python -m sspcab_cuda.demo``."""

from . import main

main()
