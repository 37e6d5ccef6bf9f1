#pragma once
// Getting the index of a shard: from the file beside it, from the cache folder, or by reading the tar once.

#include <memory>
#include <string>
#include <vector>

#include "clip/src/data/shard_index.h"

namespace twinlens {

// How the reason of a sample begins that has a picture and no caption. Where it has other members, too, their extensions follow, behind
// " among ".
inline constexpr const char* kNoCaption = "no caption (";

// gzip or zstd, by the first bytes.
bool is_compressed(const InputFile& file);

// Throws FileError, with what makes it a shard that is read, for a file that is packed by xz, bzip2 or lz4, or a zip or 7z.
void refuse_foreign_packing(const InputFile& file);

// One pass over the tar at `path` (ustar, pax, GNU names; gzip and zstd streams). Members that make no sample are listed with their reason.
// Of a tar that is cut short, damaged or no tar, the samples before the damage are there; the rest is one skipped sample without a key, the
// last of them. `damage`: what is known to be wrong already, behind the end of the file. Throws FileError when the file cannot be opened.
std::string index_tar(const std::string& path, const CaptionRules& rules, const std::string& damage = {});

// Where the index of a shard is kept: beside it; and, where that place cannot be written, under $XDG_CACHE_HOME/twinlens (default
// ~/.cache/twinlens).
std::string index_path_beside(const std::string& shard);
std::string index_path_in_cache(const std::string& shard);

// The indices of all shards, made by several threads where they are missing, damaged, or older than their shards, and kept for the next
// time where there is a place (not those of damaged shards). Says so on stderr when it takes more than two seconds. Throws what index_tar
// throws, for the first such shard.
std::vector<std::shared_ptr<const ShardIndex>> open_indices(const std::vector<std::string>& shards, const CaptionRules& rules);

}  // namespace twinlens
