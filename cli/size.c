/* Sizes are printed in powers of 1000, as disks are sold and FP16 checkpoints are quoted, and read in both systems. */
#include "size.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

char *size_text(uint64_t bytes, char *out)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double x = (double)bytes;
    int unit = 0;
    /* 999.5 would be printed as 1000 */
    for (; x >= 999.5; unit++) x /= 1000;
    const int decimals = !unit || x >= 99.95 ? 0 : x >= 9.995 ? 1 : 2;
    snprintf(out, SIZE_TEXT, "%.*f %s", decimals, x, units[unit]);
    return out;
}

bool size_parse(const char *text, uint64_t *bytes)
{
    if (!((*text >= '0' && *text <= '9') || *text == '.')) return false;
    char *end;
    double x = strtod(text, &end);
    if (end == text) return false;
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        const bool decimal = !strcasecmp(end + 1, "B");
        if (end[1] && !decimal && strcasecmp(end + 1, "iB")) return false;
        x *= pow(decimal ? 1000 : 1024, (double)(unit - units + 1));
    } else if (*end && strcasecmp(end, "B")) {
        return false;
    }
    if (!(x >= 0 && x < 0x1p63)) return false;
    *bytes = (uint64_t)x;
    return true;
}
