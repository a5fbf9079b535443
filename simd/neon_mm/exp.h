/* exp for NEON with BFMLALB and BFMLALT. */
#include "vec.h"

#include "../neon/exp.h"
