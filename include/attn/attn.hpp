/* libattn for C++17: objects that free themselves, and elements with their number.
 *
 *     attn::layer layer(config);
 *     attn::workspace workspace;
 *     attn_layer_args args{};
 *     args.q = attn::rows(q, {1, 8, 512}); // q: a vector, an array, a std::span
 *     ...
 *     layer.forward(args, workspace);
 *
 * Says no more than attn.h: its structs are filled in as in C, and each function here is the one of
 * that name there. A failure is an exception, attn::error: objects are made by constructors, which
 * return no status, and nothing can be forgotten. A program without exceptions calls the functions
 * of attn.h, with attn/alloc.h for the memory. Copying is left out: an object may be large, and
 * whoever shares one shares a reference to it. */
#ifndef ATTN_ATTN_HPP
#define ATTN_ATTN_HPP

#include <attn/alloc.h>
#include <attn/attn.h>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace attn {

/* ---- Errors ---------------------------------------------------------------------------------- */

class error : public std::exception {
  public:
    explicit error(const attn_error &details) noexcept : details_(details) {
        attn_error_text(&details_, text_, sizeof text_);
    }
    const char *what() const noexcept override { return text_; }
    const attn_error &details() const noexcept { return details_; }

  private:
    attn_error details_;
    char text_[128] = {};
};

namespace detail {

/* call(function, arguments...): throws what the function says is wrong. */
template <class Function, class... Arguments>
void call(Function function, Arguments &&...arguments) {
    attn_error details{};
    if (function(std::forward<Arguments>(arguments)..., &details) != ATTN_OK)
        throw error(details);
}

/* The bytes that the function asks for. */
template <class Function, class... Arguments>
std::size_t size(Function function, Arguments &&...arguments) {
    std::size_t bytes = 0;
    call(function, std::forward<Arguments>(arguments)..., &bytes);
    return bytes;
}

struct deleter {
    void operator()(void *object) const noexcept { attn_free(object); }
};

/* What all objects have. After a move there is none: get() is NULL, which the library refuses. */
template <class T> class object {
  public:
    T *get() noexcept { return object_.get(); }
    const T *get() const noexcept { return object_.get(); }

  protected:
    template <class Config>
    object(attn_status (*create)(const Config *, T **, attn_error *), const Config &config) {
        T *made = nullptr;
        call(create, &config, &made);
        object_.reset(made);
    }

  private:
    std::unique_ptr<T, deleter> object_;
};

} // namespace detail

/* ---- Tensors --------------------------------------------------------------------------------- */

/* The attn_type of a C++ type. To be specialised for a type of the program's own. */
template <class T> struct type_of;
template <> struct type_of<float> { static constexpr attn_type value = ATTN_F32; };
template <> struct type_of<bool> {
    static_assert(sizeof(bool) == 1, "ATTN_BOOL is a byte");
    static constexpr attn_type value = ATTN_BOOL;
};

/* Elements of one type side by side: a pointer and their number, or whatever std::data and
 * std::size know: an array, a vector, a std::span. */
template <class T> struct elements_of {
    const T *data = nullptr;
    std::size_t size = 0;

    constexpr elements_of() noexcept = default;
    constexpr elements_of(const T *first, std::size_t count) noexcept : data(first), size(count) {}
    template <class Range, class = std::enable_if_t<std::is_convertible_v<
                               decltype(std::data(std::declval<Range &>())), const T *>>>
    constexpr elements_of(Range &&range) noexcept
        : elements_of(std::data(range), std::size(range)) {}
};

/* The same of any type that a tensor or a weight may have, an input's or an output's. For all but
 * ATTN_F32 and ATTN_BOOL give the pointer, the number of elements (of ATTN_INT4 twice the bytes)
 * and the attn_type. */
template <class Void> struct basic_elements {
    Void *data;
    std::size_t size;
    attn_type type;

    constexpr basic_elements(Void *first, std::size_t count, attn_type element) noexcept
        : data(first), size(count), type(element) {}
    template <class T, class = std::enable_if_t<std::is_convertible_v<T *, Void *>>>
    constexpr basic_elements(T *first, std::size_t count) noexcept
        : basic_elements(first, count, type_of<std::remove_const_t<T>>::value) {}
    template <class Range, class = std::enable_if_t<std::is_convertible_v<
                               decltype(std::data(std::declval<Range &>())), Void *>>>
    constexpr basic_elements(Range &&range) noexcept
        : basic_elements(std::data(range), std::size(range)) {}
};
using elements = basic_elements<const void>;
using elements_out = basic_elements<void>;

struct shape {
    std::size_t batch, heads, rows, size;
};
struct rows_shape {
    std::size_t batch, rows, width;
};

namespace detail {

/* Throws ATTN_TOO_SMALL unless `given` elements are as many as the product. */
inline void check_extent(const char *field, std::size_t given, std::size_t batch, std::size_t heads,
                         std::size_t rows, std::size_t size) {
    std::size_t needed = 1;
    for (std::size_t factor : {batch, heads, rows, size}) {
        if (factor != 0 && needed > static_cast<std::size_t>(-1) / factor)
            throw error({ATTN_OVERFLOW, field, 0, 0});
        needed *= factor;
    }
    if (given < needed)
        throw error({ATTN_TOO_SMALL, field, needed, given});
}

} // namespace detail

/* attn_tensor_dense, attn_tensor_merged and attn_rows_dense. ATTN_TOO_SMALL, "data": there are
 * fewer elements than that. */
inline attn_tensor dense(elements x, shape s) {
    detail::check_extent("data", x.size, s.batch, s.heads, s.rows, s.size);
    return attn_tensor_dense(x.data, x.type, s.heads, s.rows, s.size);
}
inline attn_tensor merged(elements x, shape s) {
    detail::check_extent("data", x.size, s.batch, s.heads, s.rows, s.size);
    return attn_tensor_merged(x.data, x.type, s.heads, s.rows, s.size);
}
inline attn_tensor rows(elements x, rows_shape s) {
    detail::check_extent("data", x.size, s.batch, 1, s.rows, s.width);
    return attn_rows_dense(x.data, x.type, s.rows, s.width);
}
inline attn_tensor_out dense_out(elements_out x, shape s) {
    return attn_tensor_out_of(x.data, dense({x.data, x.size, x.type}, s));
}
inline attn_tensor_out merged_out(elements_out x, shape s) {
    return attn_tensor_out_of(x.data, merged({x.data, x.size, x.type}, s));
}
inline attn_tensor_out rows_out(elements_out x, rows_shape s) {
    return attn_tensor_out_of(x.data, rows({x.data, x.size, x.type}, s));
}

/* attn_linear_dense and attn_linear_transposed: a weight stored [in, out], and one stored [out,
 * in]; the bias [out], or none. ATTN_TOO_SMALL, "weight" or "bias": there are fewer elements. */
inline attn_linear linear(elements weight, std::size_t in, std::size_t out,
                          elements_of<float> bias = {}) {
    detail::check_extent("weight", weight.size, 1, 1, in, out);
    if (bias.data)
        detail::check_extent("bias", bias.size, 1, 1, 1, out);
    return attn_linear_dense(weight.data, weight.type, out, bias.data);
}
inline attn_linear linear_transposed(elements weight, std::size_t in, std::size_t out,
                                     elements_of<float> bias = {}) {
    attn_linear made = linear(weight, in, out, bias);
    return attn_linear_transposed(made.weight, made.type, in, made.bias);
}

/* ---- Objects --------------------------------------------------------------------------------- */

/* Memory that grows with the calls that are given it, one at a time. */
class workspace {
  public:
    workspace() noexcept = default;
    workspace(workspace &&other) noexcept : buffer_(std::exchange(other.buffer_, {})) {}
    workspace &operator=(workspace &&other) noexcept {
        std::swap(buffer_, other.buffer_);
        return *this;
    }
    ~workspace() { attn_buffer_free(&buffer_); }
    attn_buffer *get() noexcept { return &buffer_; }

  private:
    attn_buffer buffer_{};
};

class gemm : public detail::object<attn_gemm> {
  public:
    explicit gemm(const attn_gemm_config &config) : object(attn_gemm_new, config) {}
    /* Unless all is packed anew the blob must outlive it. */
    explicit gemm(const attn_import_config &config) : object(attn_gemm_import_new, config) {}
    std::size_t export_size(attn_isa isa = ATTN_ISA_BEST) const {
        return detail::size(attn_gemm_export_size, get(), isa);
    }
    void export_to(void *blob, std::size_t bytes, attn_isa isa = ATTN_ISA_BEST) const {
        detail::call(attn_gemm_export, get(), isa, blob, bytes);
    }
    void run(const attn_gemm_run_args &args, workspace &memory) const {
        detail::call(attn_gemm_run_in, get(), &args, memory.get());
    }
};

class rotary : public detail::object<attn_rotary> {
  public:
    explicit rotary(const attn_rotary_config &config) : object(attn_rotary_new, config) {}
};

class cache : public detail::object<attn_cache> {
  public:
    explicit cache(const attn_cache_config &config) : object(attn_cache_new, config) {}
    /* The parent must outlive it. */
    explicit cache(const attn_cache_fork_config &config) : object(attn_cache_fork_new, config) {}

    void append(const attn_cache_append_args &args) {
        detail::call(attn_cache_append, get(), &args);
    }
    std::size_t length(std::size_t sequence = ATTN_ALL_SEQUENCES) const noexcept {
        return attn_cache_length(get(), sequence);
    }
    void truncate(std::size_t sequence, std::size_t len) {
        detail::call(attn_cache_truncate, get(), sequence, len);
    }
    void set_pages(std::size_t sequence, std::size_t first, elements_of<std::int32_t> pages) {
        detail::call(attn_cache_set_pages, get(), sequence, first, pages.size, pages.data);
    }
    void adopt(std::size_t sequence, std::size_t len) {
        detail::call(attn_cache_adopt, get(), sequence, len);
    }
};

class layer : public detail::object<attn_layer> {
  public:
    explicit layer(const attn_layer_config &config) : object(attn_layer_new, config) {}
    /* Unless all is packed anew the blob must outlive it. */
    explicit layer(const attn_import_config &config) : object(attn_layer_import_new, config) {}
    std::size_t export_size(attn_isa isa = ATTN_ISA_BEST) const {
        return detail::size(attn_layer_export_size, get(), isa);
    }
    void export_to(void *blob, std::size_t bytes, attn_isa isa = ATTN_ISA_BEST) const {
        detail::call(attn_layer_export, get(), isa, blob, bytes);
    }

    void forward(const attn_layer_args &args, workspace &memory) const {
        detail::call(attn_layer_forward_in, get(), &args, memory.get());
    }
    void append(const attn_layer_append_args &args, workspace &memory) const {
        detail::call(attn_layer_append_in, get(), &args, memory.get());
    }
    attn_cache_config cache_config(std::size_t batch, std::size_t capacity) const {
        attn_cache_config config{};
        detail::call(attn_layer_cache_config, get(), batch, capacity, &config);
        return config;
    }
    std::string kernels() const {
        std::string text(attn_layer_kernels(get(), nullptr, 0) + 1, '\0');
        text.resize(attn_layer_kernels(get(), text.data(), text.size()));
        return text;
    }
};

/* ---- Calls without an object ----------------------------------------------------------------- */

inline void attention(const attn_attention_args &args, workspace &memory) {
    detail::call(attn_attention_in, &args, memory.get());
}
inline void merge(const attn_merge_args &args) {
    detail::call(attn_merge, &args);
}
inline void masked_softmax(const attn_softmax_args &args) {
    detail::call(attn_masked_softmax, &args);
}
inline void transpose_qkv(const attn_transpose_args &args) {
    detail::call(attn_transpose_qkv, &args);
}
inline void transpose_output(const attn_transpose_args &args) {
    detail::call(attn_transpose_output, &args);
}

} // namespace attn

#endif
