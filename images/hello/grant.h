/* The grant table: which pages another domain may reach. */
#pragma once
#include "types.h"

enum access { READ_ONLY, READ_WRITE };

bool grants_start(void);                /* at start, and again after a restore */

/*
 * Let domain `domain` reach `page` under that number, from GRANTS_FIRST to GRANTS_LAST. The caller
 * chooses the number; a number may be used anew when the other domain has let go of its page.
 */
enum { GRANTS_FIRST = 8, GRANTS_LAST = 511 };
void grant(u32 number, u16 domain, const void *page, enum access access);
