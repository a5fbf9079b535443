/* A function that is written once, however many callers give it constants. */
#ifndef ATTN_BODY_ONE_COPY_H
#define ATTN_BODY_ONE_COPY_H

#ifdef __clang__
#define ONE_COPY __attribute__((noinline))
#else
#define ONE_COPY __attribute__((noinline, noclone)) /* or gcc writes it once for each caller */
#endif

#endif
