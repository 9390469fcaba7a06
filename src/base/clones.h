/* Loops over pixels and samples that gain from wide vectors but need no kernel of their own: the compiler makes a copy for
 * each instruction set and the program loader picks one. The copies give the same bits, for they round alike
 * (-ffp-contract=off) and no sum is reordered; so XKD_CPU does not choose among them. */
#ifndef XKD_BASE_CLONES_H
#define XKD_BASE_CLONES_H

/* Sanitizers cannot follow the loader's choice, which comes before they are ready. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define XKD_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx2", "sse4.2", "default")))
#else
#define XKD_CLONES
#endif

#endif
