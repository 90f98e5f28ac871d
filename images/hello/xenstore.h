/*
 * Xenstore, the small tree of texts through which tools and guests find each other.
 *
 * Paths that do not begin with a slash are below this domain's own /local/domain/<id>.
 */
#pragma once
#include "types.h"

enum { XENSTORE_TEXT = 256 };           /* room that suffices for every path and value used here */

/* What can be watched; each has one path at a time. */
enum watch { WATCH_SHUTDOWN, WATCH_BACKEND, WATCHES };

bool xenstore_start(void);              /* at start, and again after a restore; forgets all watches */

bool xenstore_read(const char *path, char *value, u32 room);  /* false: not there; value is then "" */
u32 xenstore_read_number(const char *path, u32 otherwise);
bool xenstore_write(const char *path, const char *value);
bool xenstore_write_number(const char *path, u32 value);

/* From now on tell when that path changes; tells once at once, so that no change is missed. */
bool xenstore_watch(enum watch watch, const char *path);
bool xenstore_changed(enum watch watch);  /* has it changed since the last call? */
bool xenstore_any_changed(void);        /* would one of them say yes? */

u32 xenstore_port(void);                /* the event channel that announces changes */
