/* What the web server shows. */
#pragma once
#include "text.h"

void page_html(struct text *page, u64 started);         /* `started`: seconds since 1970 */
void page_json(struct text *page, u64 started);
