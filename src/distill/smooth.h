/* Smoothing: a channel that is far larger than its neighbours sets the scale of every token. Dividing it by s where it is made and
 * multiplying the columns of the maps that read it by s changes no output; the maps' weights bear what the tokens were relieved of.
 * s is a power of two, so that the float function stays the same to the bit (underflow aside) and can be put back exactly. */
#ifndef ZQ_DISTILL_SMOOTH_H
#define ZQ_DISTILL_SMOOTH_H

#include "distill/student.h"

/* Places in a block where a scaling may go from what makes a channel to the maps that read it. */
enum zq_smooth_place { ZQ_SMOOTH_NORM1, ZQ_SMOOTH_NORM2, ZQ_SMOOTH_VALUES, ZQ_SMOOTH_UP, ZQ_N_SMOOTH };

/* Channels at a place; 0: the family has no such place, the scaling would not commute, or a map there stays float. */
size_t zq_smooth_channels(const struct zq_student *s, enum zq_smooth_place place);
/* Multiplies what makes channel i by 2^-exponents[i] and the columns that read it by 2^exponents[i]; undo: the other way round. */
void zq_smooth_apply(struct zq_student *s, enum zq_smooth_place place, const signed char *exponents, bool undo);
/* The same with any factors [channels] > 0 of the columns, which change the function by rounding. */
void zq_smooth_scale(struct zq_student *s, enum zq_smooth_place place, const float *factors);
/* Adds |value| of each channel over the tokens of the latest float pass that reached the place to sums [channels]. */
void zq_smooth_sums(const struct zq_student *s, enum zq_smooth_place place, double *sums);
/* Largest |value| of each channel in the latest float pass that reached the place: largest [channels] only grows. */
void zq_smooth_largest(const struct zq_student *s, enum zq_smooth_place place, float *largest);
/* exponents [channels]: s = largest^share / weight^(1 - share), weight the largest of a channel's columns, about their geometric
 * mean (SmoothQuant, section 4). weights: [channels] scratch. */
void zq_smooth_exponents(const struct zq_student *s, enum zq_smooth_place place, const float *largest, double share, float *weights,
                         signed char *exponents);

#endif
