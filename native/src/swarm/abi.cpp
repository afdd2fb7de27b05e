#include "zest_swarm.h"

int zest_swarm_abi(void) { return 1; }
