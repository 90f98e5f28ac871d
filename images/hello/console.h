/* Words for whoever watches the console, each line with the time since start. */
#pragma once
#include "platform.h"

extern const struct platform *machine;  /* chosen in main.c before anything else */

void say(const char *format, ...);      /* one line; the format is that of put() in text.h */
void fatal(const char *format, ...) __attribute__((noreturn));  /* say why, and power off */
