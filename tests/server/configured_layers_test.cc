// Guards the layers of the configuration: where they are found, what configures them, and the sentences when they fail.
#include "server/config/configured_layers.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>
#include <string>
#include <vector>

#include "tests/support/checkpoint_builder.h"
#include "tests/support/temporary_folder.h"

namespace attend::server {
namespace {

using ::attend::testing::CheckpointBuilder;
using ::attend::testing::RandomMatrix;
using ::attend::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Bert(const std::vector<std::string>& prefixes) {
  std::mt19937 random(1);
  CheckpointBuilder builder;
  for (const std::string& prefix : prefixes) {
    for (const char* const name : {"self.query", "self.key", "self.value", "output.dense"}) {
      builder.Add(prefix + "attention." + name + ".weight", RandomMatrix(12, 12, random));
    }
  }
  return builder.Build();
}

struct Loaded {
  absl::Status status;
  std::vector<std::string> names;
  std::vector<std::shared_ptr<const Layer>> layers;
  std::vector<std::string> skipped;
};

Loaded Load(const LayerSources& sources) {
  Loaded loaded;
  auto layers = LoadConfiguredLayers(sources, BestInstructionSet(),
                                     [&](const std::string& sentence) { loaded.skipped.push_back(sentence); });
  loaded.status = layers.status();
  if (!layers.ok()) return loaded;
  loaded.layers = *std::move(layers);
  for (const auto& layer : loaded.layers) loaded.names.push_back(layer->description().name());
  return loaded;
}

std::string Refusal(const LayerSources& sources) { return std::string(Load(sources).status.message()); }

TEST(ConfiguredLayers, NoneIsFine) { EXPECT_THAT(Load({}).names, ElementsAre()); }

TEST(ConfiguredLayers, AreLoadedFromFilesAndSeeds) {
  const TemporaryFolder folder;
  const std::string file = folder.Write("model.safetensors", Bert({"encoder.layer.0.", "encoder.layer.1."}));
  folder.Write("config.json", R"({"model_type": "bert", "num_attention_heads": 3})");
  const Loaded loaded =
      Load({.layers = {"m/1=" + file + "#encoder.layer.1.", "m/0=" + file + "#encoder.layer.0", "seeded=init:-7:4"},
            .configs = {R"(m/1={"num_heads": 6})"}});
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  EXPECT_THAT(loaded.names, ElementsAre("m/0", "m/1", "seeded"));
  const v1::Layer& first = loaded.layers[0]->description();
  EXPECT_EQ(first.config().num_heads(), 3);
  EXPECT_EQ(first.naming(), "bert");
  EXPECT_EQ(first.origin(), "model.safetensors#encoder.layer.0") << "a folder of the server is shown";
  EXPECT_TRUE(first.read_only());
  EXPECT_GT(first.create_time().seconds(), 1600000000);
  EXPECT_EQ(loaded.layers[1]->description().config().num_heads(), 6);
  EXPECT_NE(first.etag(), loaded.layers[1]->description().etag());
  EXPECT_EQ(loaded.layers[2]->description().origin(), "init seed -7");
  EXPECT_EQ(loaded.layers[2]->description().embed_dim(), 4);
}

TEST(ConfiguredLayers, AreFoundInFolders) {
  const TemporaryFolder folder;
  folder.Write("one/model.safetensors", Bert({""}));
  folder.Write("one/other.safetensors", "not looked at");
  folder.Write("two/any.safetensors", Bert({"x."}));
  folder.Write("two/layer.json", R"({"prefix": "x", "numHeads": 2})");
  folder.Write("two/config.json", R"({"model_type": "bert", "num_attention_heads": 4})");
  folder.Write("three/model.safetensors.index.json", R"({"weight_map": {
      "attention.self.query.weight": "part.safetensors", "attention.self.key.weight": "part.safetensors",
      "attention.self.value.weight": "part.safetensors", "attention.output.dense.weight": "part.safetensors"}})");
  folder.Write("three/part.safetensors", Bert({""}));
  folder.Write("three/config.json", R"({"model_type": "bert", "num_attention_heads": 4})");
  folder.Write("..data/x", "");
  folder.Write("README", "");
  const Loaded loaded =
      Load({.configs = {"one=" + folder.Write("c.json", R"({"num_heads": 12})")}, .directory = folder.path()});
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  EXPECT_THAT(loaded.names, ElementsAre("one", "three", "two"));
  EXPECT_EQ(loaded.layers[0]->description().config().num_heads(), 12);
  EXPECT_EQ(loaded.layers[1]->description().config().num_heads(), 4);
  EXPECT_EQ(loaded.layers[2]->description().config().num_heads(), 2);
}

// A shard that is replaced makes another layer, although the index stays.
TEST(ConfiguredLayers, TheEtagIsOfAllFilesOfASharded) {
  const TemporaryFolder folder;
  const std::string index = folder.Write("model.safetensors.index.json", R"({"weight_map": {
      "attention.self.query.weight": "a.safetensors", "attention.self.key.weight": "a.safetensors",
      "attention.self.value.weight": "a.safetensors", "attention.output.dense.weight": "a.safetensors"}})");
  const std::string shard = folder.Write("a.safetensors", Bert({""}));
  const std::string config = folder.Write("config.json", R"({"model_type": "bert", "num_attention_heads": 4})");
  const auto etag = [&] { return Load({.layers = {"m=" + index}}).layers.at(0)->description().etag(); };
  const std::string first = etag();
  EXPECT_EQ(etag(), first);
  std::set<std::string> etags = {first};
  for (const std::string& file : {index, shard, config}) {
    const timespec times[] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
    EXPECT_TRUE(etags.insert(etag()).second) << file;
  }
}

TEST(ConfiguredLayers, AFailureNamesFlagLayerFileAndReason) {
  const TemporaryFolder folder;
  const std::string good = folder.Write("good.safetensors", Bert({""}));
  const std::string bad = folder.Write("bad.safetensors", "bad");
  EXPECT_THAT(Refusal({.layers = {"b=" + bad}}),
              AllOf(HasSubstr("--layer: the layer 'b' cannot be loaded: " + bad + ": the .safetensors header length"),
                    HasSubstr("--skip-broken-layers")));
  EXPECT_THAT(Refusal({.layers = {"b=/nowhere.safetensors"}}), HasSubstr("cannot open /nowhere.safetensors"));
  EXPECT_THAT(Refusal({.layers = {"b=" + good + "#x"}}), HasSubstr(good + ": no attention layer was found with the"));
  EXPECT_THAT(Refusal({.layers = {"b=" + good}, .configs = {R"(b={"num_heads": 5})"}}),
              HasSubstr(good + ": config.num_heads is 5; it must divide the 12 rows"));
  EXPECT_THAT(Refusal({.layers = {"b=" + good}}),
              AllOf(HasSubstr("--layer: the layer 'b' cannot be loaded: " + good + ": config.num_heads is not set"),
                    HasSubstr("--layer-config")));
  EXPECT_THAT(Refusal({.layers = {"b=init:1:0"}}), HasSubstr("init.embed_dim is 0"));
  EXPECT_THAT(Refusal({.layers = {"b=init:1:2"}, .configs = {R"(b={"ignored_tensors": ["w"]})"}}),
              HasSubstr("config.ignored_tensors is set"));
  folder.Write("config.json", "[]");
  EXPECT_THAT(Refusal({.layers = {"b=" + good}}), HasSubstr(folder.path() + "/config.json: it is not a JSON object"));
}

TEST(ConfiguredLayers, AFolderThatIsNoLayerIsAnError) {
  const TemporaryFolder folder;
  folder.Write("d/a/config.json", "{}");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}),
              AllOf(HasSubstr("--layer-dir: the layer 'a'"), HasSubstr("there is no .safetensors file")));
  folder.Write("d/a/x.safetensors", "");
  folder.Write("d/a/y.safetensors", "");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("2 files that end in .safetensors"));
  folder.Write("d/a/model.safetensors", Bert({""}));
  folder.Write("d/a/layer.json", R"({"prefix": 3})");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("layer.json: `prefix` is not a string"));
  folder.Write("d/a/layer.json", R"({"heads": 3})");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("layer.json: it is not a LayerConfig"));
  folder.Write("d/a/layer.json", R"({"rotary_embedding": {"original_context_length": 8}})");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("layer.json: config.rotary_embedding.original_"));
  folder.Write("d/a/layer.json", "{");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("layer.json: it is not a JSON object"));
  folder.Write("d/a/layer.json", "{\"x\": " + std::string(400000, '[') + std::string(400000, ']') + "}");
  EXPECT_THAT(Refusal({.directory = folder.path() + "/d"}), HasSubstr("layer.json: it is not a JSON object"));
  folder.Write("e/Upper/model.safetensors", Bert({""}));
  EXPECT_THAT(Refusal({.directory = folder.path() + "/e"}), HasSubstr("--layer-dir: the folder's name in"));
  EXPECT_THAT(Refusal({.directory = "/nowhere"}), HasSubstr("--layer-dir: cannot read the folder /nowhere"));
}

TEST(ConfiguredLayers, BrokenOnesCanBeLeftOut) {
  const Loaded loaded = Load({.layers = {"a=init:1:2", "b=/nowhere.safetensors"}, .skip_broken = true});
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  EXPECT_THAT(loaded.names, ElementsAre("a"));
  EXPECT_THAT(loaded.skipped, ElementsAre(HasSubstr("the layer 'b' cannot be loaded: cannot open /nowhere")));
}

TEST(ConfiguredLayers, MalformedFlagsAreErrorsInAnyCase) {
  const std::pair<LayerSources, const char*> cases[] = {
      {{.layers = {"x"}}, "--layer: 'x' is not of the form NAME=..."},
      {{.layers = {"x="}}, "not of the form"},
      {{.layers = {"../x=init:1:2"}}, "--layer: the name in '../x=init:1:2'"},
      {{.layers = {"X=init:1:2"}}, "the name in"},
      {{.layers = {"x=init:1"}}, "'init:1' is not of the form init:SEED:EMBED_DIM"},
      {{.layers = {"x=init:a:2"}}, "not of the form init"},
      {{.layers = {"x=init:1:2:3"}}, "not of the form init"},
      {{.layers = {"x=init:1:2", "x=init:1:3"}}, "there are two layers with the name 'x'"},
      {{.configs = {"x={}"}}, "--layer-config: there is no layer 'x'"},
      {{.layers = {"x=init:1:2"}, .configs = {"x={"}}, "--layer-config: x: it is not a LayerConfig in JSON"},
      {{.layers = {"x=init:1:2"}, .configs = {R"(x={"rotary_embedding": {"original_context_length": 8}})"}},
       "--layer-config: x: config.rotary_embedding.original_context_length is set without dynamic_factor"},
      {{.layers = {"x=init:1:2"}, .configs = {"x=/nowhere.json"}}, "--layer-config: cannot open /nowhere.json"},
  };
  for (auto [sources, message] : cases) {
    sources.skip_broken = true;
    EXPECT_THAT(Refusal(sources), HasSubstr(message));
  }
}

}  // namespace
}  // namespace attend::server
