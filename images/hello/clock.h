/* The PC's clocks: time since start, the time of day, and an alarm that interrupts a sleep. */
#pragma once
#include "types.h"

void clock_start(void);                 /* takes about 5 ms; interrupts must be set up and off */
u64 clock_now_ns(void);                 /* since clock_start began; never goes back */
u64 clock_wall_s(void);                 /* seconds since 1970, from the battery-backed clock */
bool clock_set_alarm(u64 at_ns);        /* interrupt once then; false: that time has passed */
