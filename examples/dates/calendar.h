/* Days that there are. */
#ifndef DATES_CALENDAR_H
#define DATES_CALENDAR_H

#include <stdbool.h>

/* Whether the text is YYYY-MM-DD and a day of the Gregorian calendar, which counts also before it was made. */
bool calendar_has(const char *text);

#endif
