/* Numbers that outsiders cannot guess: for TCP's sequence numbers and DHCP's transactions. */
#pragma once
#include "types.h"

void hash_seed(const void *data, u32 length);   /* mix in something that differs from start to start */
u32 keyed_hash(const void *data, u32 length);   /* by the secret the seeds made */
u32 random32(void);
