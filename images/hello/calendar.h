/* Dates of the Gregorian calendar and seconds since 1970, in UTC. */
#pragma once
#include "text.h"

u64 seconds_since_1970(u32 year, u32 month, u32 day, u32 hour, u32 minute, u32 second);
void put_time(struct text *to, u64 seconds);            /* 2026-11-21 13:00:00 UTC */
void put_http_date(struct text *to, u64 seconds);       /* Sat, 21 Nov 2026 13:00:00 GMT (RFC 9110, 5.6.7) */
