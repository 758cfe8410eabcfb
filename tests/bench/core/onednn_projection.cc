#include "tests/bench/core/onednn_projection.h"

#include <omp.h>

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

namespace attend::bench {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

memory::desc Matrix(std::int64_t rows, std::int64_t columns, Tag layout) {
  return {{rows, columns}, memory::data_type::f32, layout};
}

// A primitive with its memory.
struct Setup {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::string name;
  dnnl::primitive primitive;
  memory x, y;
  memory given;     // The weights in the caller's layout.
  memory expected;  // And in the layout the primitive wants, which may be the same.

  bool Reorders() const { return given.get_desc() != expected.get_desc(); }
  void Reorder() { dnnl::reorder(given, expected).execute(stream, given, expected); }
  void Execute() {
    primitive.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, expected}, {DNNL_ARG_DST, y}});
    stream.wait();
  }
};

std::string Version() {
  const dnnl::version_t* v = dnnl::version();
  return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

template <typename Primitive, typename Description>
void Finish(const Projection<float>& p, const std::string& kind, const Description& description, Setup& setup) {
  setup.name = Version() + " " + kind + " " + description.impl_info_str();
  setup.primitive = Primitive(description);
  setup.x = memory(description.src_desc(), setup.engine, const_cast<float*>(p.x));
  setup.y = memory(description.dst_desc(), setup.engine, p.y);
  const bool same = setup.given.get_desc() == description.weights_desc();
  setup.expected = same ? setup.given : memory(description.weights_desc(), setup.engine);
}

// Either keeps the weights in the caller's layout or lets the primitive choose one.
std::shared_ptr<Setup> InnerProduct(const Projection<float>& p, bool choose) {
  const auto setup = std::make_shared<Setup>();
  const std::int64_t in = p.linear.in_features, out = p.linear.out_features;
  setup->given = memory(Matrix(out, in, Tag::ab), setup->engine, const_cast<void*>(p.linear.weight));
  const dnnl::inner_product_forward::desc operation(dnnl::prop_kind::forward_inference, Matrix(p.num_rows, in, Tag::ab),
                                                    Matrix(out, in, choose ? Tag::any : Tag::ab),
                                                    Matrix(p.num_rows, out, Tag::ab));
  using Primitive = dnnl::inner_product_forward;
  Finish<Primitive>(p, "inner product", Primitive::primitive_desc(operation, setup->engine), *setup);
  return setup;
}

std::shared_ptr<Setup> Matmul(const Projection<float>& p, bool choose) {
  const auto setup = std::make_shared<Setup>();
  const std::int64_t in = p.linear.in_features, out = p.linear.out_features;
  setup->given = memory(Matrix(in, out, Tag::ba), setup->engine, const_cast<void*>(p.linear.weight));
  const dnnl::matmul::desc operation(Matrix(p.num_rows, in, Tag::ab), Matrix(in, out, choose ? Tag::any : Tag::ba),
                                     Matrix(p.num_rows, out, Tag::ab));
  Finish<dnnl::matmul>(p, "matmul", dnnl::matmul::primitive_desc(operation, setup->engine), *setup);
  return setup;
}

// Adds the ways to use a setup: the weights as they are, or reordered each time, or reordered now.
void AddWays(const std::shared_ptr<Setup>& setup, std::vector<OnednnWay>& ways) {
  if (setup->name.find(" ref") != std::string::npos) return;
  if (!setup->Reorders()) {
    ways.push_back({setup->name + ", weights as they are", false, [setup] { setup->Execute(); }});
    return;
  }
  setup->Reorder();
  const auto reorder_and_execute = [setup] {
    setup->Reorder();
    setup->Execute();
  };
  ways.push_back({setup->name + ", weights reordered in each call", false, reorder_and_execute});
  ways.push_back({setup->name + ", weights reordered before", true, [setup] { setup->Execute(); }});
}

}  // namespace

std::vector<OnednnWay> OnednnWays(const Projection<float>& projection) {
  omp_set_num_threads(1);
  std::vector<OnednnWay> ways;
  for (const bool choose : {false, true}) {
    AddWays(InnerProduct(projection, choose), ways);
    AddWays(Matmul(projection, choose), ways);
  }
  return ways;
}

}  // namespace attend::bench
