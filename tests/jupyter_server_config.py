"What `dev.py lab` adds to Jupyter's own configuration."
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
from settle import after_save  # noqa: E402

get_config().FileContentsManager.post_save_hook = after_save  # noqa: F821
