/* Packed weights as a blob, beside packing them anew ("packing_<isa>"): how long a process waits for them at its start.
 *
 *   import            used where they lie
 *   import_verified   likewise, their checksum compared
 *   import_copy       packed anew, from the blob
 *   export            written */
#include "inputs.h"
#include "subject.h"

namespace bench {
namespace {

constexpr gemm_shape packed_shapes[] = {{"768x768", 1, 768, 768}, {"4096x4096", 1, 4096, 4096}};

constexpr struct {
    const char *name;
    attn_import_mode mode;
    int verify;
} imports[] = {{"import", ATTN_IMPORT_IN_PLACE, 0},
               {"import_verified", ATTN_IMPORT_IN_PLACE, 1},
               {"import_copy", ATTN_IMPORT_COPY, 0}};

class packing {
  public:
    packing(attn_isa isa, const gemm_shape &shape, const product_types &types) : weights(types, shape.k, shape.n, 2) {
        config.isa = isa;
        config.k = shape.k;
        config.n = shape.n;
        config.w = weights.linear();
        gemm = create(config, attn_gemm_size, attn_gemm_create, memory);
        attn_error error{};
        check(attn_gemm_size(&config, &bytes, &error), error);
    }

    attn_status operator()(attn_error *error) { return attn_gemm_create(&config, memory.data(), bytes, &gemm, error); }

    attn_gemm *get() const { return gemm; }

  private:
    typed_weights weights;
    attn_gemm_config config = {};
    buffer<char> memory{0};
    std::size_t bytes = 0;
    attn_gemm *gemm;
};

class exporting {
  public:
    exporting(attn_isa isa, const gemm_shape &shape, const product_types &types) : from(isa, shape, types) {
        attn_error error{};
        check(attn_gemm_export_size(from.get(), ATTN_ISA_BEST, &bytes, &error), error);
        blob = buffer<char>(bytes);
    }

    attn_status operator()(attn_error *error) {
        return attn_gemm_export(from.get(), ATTN_ISA_BEST, blob.data(), bytes, error);
    }

    const char *data() const { return blob.data(); }
    std::size_t size() const { return bytes; }

  private:
    packing from;
    buffer<char> blob{0};
    std::size_t bytes = 0;
};

class importing {
  public:
    importing(attn_isa isa, const gemm_shape &shape, const product_types &types, attn_import_mode mode, int verify)
        : from(isa, shape, types) {
        attn_error error{};
        check(from(&error), error);
        config.isa = isa;
        config.blob = from.data();
        config.blob_bytes = from.size();
        config.mode = mode;
        config.verify = verify;
        check(attn_gemm_import_size(&config, &bytes, &error), error);
        memory = buffer<char>(bytes);
    }

    attn_status operator()(attn_error *error) {
        attn_gemm *gemm;
        return attn_gemm_import(&config, memory.data(), bytes, &gemm, error);
    }

  private:
    exporting from;
    attn_import_config config = {};
    buffer<char> memory{0};
    std::size_t bytes = 0;
};

} /* namespace */

void add_blobs(catalogue &to, attn_isa isa) {
    const std::string isa_name = attn_isa_name(isa);
    for (const product_types &types : all_product_types) {
        if (types.rows != ATTN_F32 || types.dequantised) /* nothing of a blob's layout depends on these */
            continue;
        for (const gemm_shape &shape : packed_shapes) {
            const auto add = [&](const char *operation, const std::string &variant, std::function<subject()> make) {
                to.push_back({operation, variant, shape.name, isa, make, false, types.name});
            };
            const work none = {};
            for (const auto &import : imports) {
                add(import.name, isa_name, [=, &shape, &types] {
                    return make_subject<importing>(none, isa, shape, types, import.mode, import.verify);
                });
                add(import.name, "packing_" + isa_name,
                    [=, &shape, &types] { return make_subject<packing>(none, isa, shape, types); });
            }
            add("export", isa_name, [=, &shape, &types] { return make_subject<exporting>(none, isa, shape, types); });
        }
    }
}

} /* namespace bench */
