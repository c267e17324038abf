"Imported where processes are forked from: so those of a pool fork their kernels."
from kernels import launch_by

launch_by('ForkedHere')
