/* HTTP/1.1 and 1.0 (RFC 9112): GET and HEAD of a few small pages. */
#pragma once
#include "text.h"

#define HTTP_MOST 4096                  /* bytes of one response */

void http_start(void);                  /* remember when the guest started */

/* Answer the first request in `requests`, if it is there as a whole, and return its length, or 0.
 * `room` is how long a request can get. Sets `close` if no other request is to follow. */
u32 http_answer(const char *requests, u32 length, u32 room, struct text *response, bool *close);
