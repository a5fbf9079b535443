#include "isas.h"
#include "subject.h"

namespace bench {

namespace {

/* Softmax and transposes multiply nothing: all their types have kernels in the same ISAs. */
bool inherits(const entry &entry) {
    const bool multiplies = entry.operation != "softmax" && entry.operation.rfind("transpose", 0) != 0;
    return !has_own_kernels(entry.isa, multiplies ? entry.types : "");
}

} /* namespace */

catalogue all_subjects() {
    using add_operation = void (*)(catalogue & to, attn_isa isa);
    const add_operation operations[] = {add_gemm,       add_attention, add_layer,    add_softmax,
                                        add_transposes, add_exp,       add_features, add_blobs};
    catalogue all;
    for (const add_operation add : operations)
        for (const attn_isa isa : isas_of_architecture()) {
            const std::size_t before = all.size();
            add(all, isa);
            for (std::size_t i = before; i < all.size(); i++)
                all[i].inherited = inherits(all[i]);
        }
    add_libc(all);
#if defined(HAVE_ONEDNN)
    add_onednn(all);
#endif
#if defined(HAVE_OPENBLAS)
    add_openblas(all);
#endif
    return all;
}

void check(attn_status status, const attn_error &error) {
    char text[256];
    if (status == ATTN_OK)
        return;
    attn_error_text(&error, text, sizeof text);
    throw failure(text);
}

} /* namespace bench */
