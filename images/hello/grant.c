/*
 * The grant table, version 1: one page of 512 entries, more than this guest needs.
 *
 * Pages are granted once and stay granted while the device lives: no call and no change of the
 * table for each frame. What the other domain can thereby see is frames and rings, nothing else.
 */
#include "grant.h"

#include "hypercall.h"
#include "io.h"
#include "xen_abi.h"

static volatile struct grant_entry table[PAGE_SIZE / sizeof(struct grant_entry)] PAGE_ALIGNED;

_Static_assert((u32)GRANTS_FIRST == GNTTAB_RESERVED_ENTRIES, "the first are the tools'");
_Static_assert(GRANTS_LAST == countof(table) - 1, "the table is one page");

bool grants_start(void)
{
    return map_xen_page(XENMAPSPACE_grant_table, 0, (void *)table);
}

void grant(u32 number, u16 domain, const void *page, enum access access)
{
    volatile struct grant_entry *entry = &table[number];

    entry->frame = (u32)page / PAGE_SIZE;
    entry->domid = domain;
    barrier();                          /* the flags make the entry valid: they come last */
    entry->flags = GTF_permit_access | (access == READ_ONLY ? GTF_readonly : 0);
}
