#include "isas.h"
#include "subject.h"

namespace bench {

catalogue all_subjects() {
    using add_operation = void (*)(catalogue & to, attn_isa isa);
    const add_operation operations[] = {add_gemm,       add_attention, add_layer,   add_softmax,
                                        add_transposes, add_exp,       add_features};
    catalogue all;
    for (const add_operation add : operations)
        for (const attn_isa isa : isas_of_architecture()) {
            const std::size_t before = all.size();
            add(all, isa);
            for (std::size_t i = before; i < all.size(); i++)
                all[i].inherited = all[i].types.empty() ? f32_isa(isa) != isa : !has_own_gemm(isa, all[i].types);
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
