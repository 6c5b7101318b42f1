/* Giving back what was freed. */
#ifndef ZQ_BASE_TRIM_H
#define ZQ_BASE_TRIM_H

/* Asks for memory that was freed to be given back to the system at once: it stays resident until then, and no plan counts it. */
void zq_trim(void);

#endif
