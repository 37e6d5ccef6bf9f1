// Models by name: the sizes of open_clip's src/open_clip/model_configs, which are facts.

#include <algorithm>
#include <iterator>

#include "twinlens/clip/config.h"

namespace twinlens {
namespace {

struct Preset {
  const char* name;
  const char* json;
};

// -quickgelu variants are made below.
constexpr Preset
    kPresets[] =
        {
            {"RN50",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":[3,4,6,3],"width":64},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"RN101",
             R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":[3,4,23,3],"width":64},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"RN50x4",
             R"({"embed_dim":640,"vision_cfg":{"image_size":288,"layers":[4,6,10,6],"width":80},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
            {"RN50x16",
             R"({"embed_dim":768,"vision_cfg":{"image_size":384,"layers":[6,8,18,8],"width":96},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"RN50x64",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":448,"layers":[3,15,36,10],"width":128},"text_cfg":{"width":1024,"heads":16,"layers":12}})"},
            {"ViT-S-32-alt",
             R"({"embed_dim":256,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":32},"text_cfg":{"width":256,"heads":4,"layers":10}})"},
            {"ViT-S-32",
             R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":32},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
            {"ViT-S-16-alt",
             R"({"embed_dim":256,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":16},"text_cfg":{"width":256,"heads":4,"layers":10}})"},
            {"ViT-S-16",
             R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":384,"patch_size":16},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
            {"ViT-M-32-alt",
             R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":512,"patch_size":32},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
            {"ViT-M-32",
             R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":512,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"ViT-M-16-alt",
             R"({"embed_dim":384,"vision_cfg":{"image_size":224,"layers":12,"width":512,"patch_size":16,"ls_init_value":0.0001},"text_cfg":{"width":384,"heads":6,"layers":12}})"},
            {"ViT-M-16",
             R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":512,"patch_size":16},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"ViT-B-32",
             R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":768,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"ViT-B-32-256",
             R"({"embed_dim":512,"vision_cfg":{"image_size":256,"layers":12,"width":768,"patch_size":32},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"ViT-B-32-plus-256",
             R"({"embed_dim":640,"vision_cfg":{"image_size":256,"layers":12,"width":896,"patch_size":32},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
            {"ViT-B-16",
             R"({"embed_dim":512,"vision_cfg":{"image_size":224,"layers":12,"width":768,"patch_size":16},"text_cfg":{"width":512,"heads":8,"layers":12}})"},
            {"ViT-B-16-plus",
             R"({"embed_dim":640,"vision_cfg":{"image_size":224,"layers":12,"width":896,"patch_size":16},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
            {"ViT-B-16-plus-240",
             R"({"embed_dim":640,"vision_cfg":{"image_size":240,"layers":12,"width":896,"patch_size":16},"text_cfg":{"width":640,"heads":10,"layers":12}})"},
            {"ViT-L-16",
             R"({"embed_dim":768,"vision_cfg":{"image_size":224,"layers":24,"width":1024,"patch_size":16},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"ViT-L-16-320",
             R"({"embed_dim":768,"vision_cfg":{"image_size":320,"layers":24,"width":1024,"patch_size":16},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"ViT-L-14",
             R"({"embed_dim":768,"vision_cfg":{"image_size":224,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"ViT-L-14-280",
             R"({"embed_dim":768,"vision_cfg":{"image_size":280,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"ViT-L-14-336",
             R"({"embed_dim":768,"vision_cfg":{"image_size":336,"layers":24,"width":1024,"patch_size":14},"text_cfg":{"width":768,"heads":12,"layers":12}})"},
            {"ViT-H-16",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":32,"width":1280,"head_width":80,"patch_size":16},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
            {"ViT-H-14",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":32,"width":1280,"head_width":80,"patch_size":14},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
            {"ViT-H-14-378",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":378,"layers":32,"width":1280,"head_width":80,"patch_size":14},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
            {"ViT-g-14",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":40,"width":1408,"head_width":88,"mlp_ratio":4.3637,"patch_size":14},"text_cfg":{"width":1024,"heads":16,"layers":24}})"},
            {"ViT-bigG-14",
             R"({"embed_dim":1280,"vision_cfg":{"image_size":224,"layers":48,"width":1664,"head_width":104,"mlp_ratio":4.9231,"patch_size":14},"text_cfg":{"width":1280,"heads":20,"layers":32}})"},
            {"ViT-e-14",
             R"({"embed_dim":1280,"vision_cfg":{"image_size":224,"layers":56,"width":1792,"head_width":112,"mlp_ratio":8.5715,"patch_size":14},"text_cfg":{"width":1280,"heads":20,"layers":36}})"},
            {"ViT-L-14-CLIPA",
             R"({"embed_dim":768,"vision_cfg":{"image_size":224,"layers":24,"width":1024,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":768,"heads":12,"layers":12,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-L-14-CLIPA-336",
             R"({"embed_dim":768,"vision_cfg":{"image_size":336,"layers":24,"width":1024,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":768,"heads":12,"layers":12,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-H-14-CLIPA",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":224,"layers":32,"width":1280,"head_width":80,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":1024,"heads":16,"layers":24,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-H-14-CLIPA-336",
             R"({"embed_dim":1024,"vision_cfg":{"image_size":336,"layers":32,"width":1280,"head_width":80,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":1024,"heads":16,"layers":24,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-bigG-14-CLIPA",
             R"({"embed_dim":1280,"vision_cfg":{"image_size":224,"layers":48,"width":1664,"head_width":104,"mlp_ratio":4.9231,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":1280,"heads":20,"layers":32,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-bigG-14-CLIPA-336",
             R"({"embed_dim":1280,"vision_cfg":{"image_size":336,"layers":48,"width":1664,"head_width":104,"mlp_ratio":4.9231,"patch_size":14,"no_ln_pre":true,"pool_type":"avg","final_ln_after_pool":true},"text_cfg":{"context_length":32,"vocab_size":32000,"hf_tokenizer_name":"bert-base-uncased","tokenizer_kwargs":{"strip_sep_token":true},"width":1280,"heads":20,"layers":32,"pool_type":"last","no_causal_mask":true}})"},
            {"ViT-B-16-SigLIP",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":224,"timm_model_name":"vit_base_patch16_siglip_224","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-B-16-SigLIP-256",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_base_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-B-16-SigLIP-384",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_base_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-B-16-SigLIP-512",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":512,"timm_model_name":"vit_base_patch16_siglip_512","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-B-16-SigLIP-i18n-256",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_base_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":250000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP-i18n-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-L-16-SigLIP-256",
             R"({"embed_dim":1024,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_large_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":1024,"heads":16,"layers":24,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-L-16-SigLIP-384",
             R"({"embed_dim":1024,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_large_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":1024,"heads":16,"layers":24,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-SO400M-14-SigLIP",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":224,"timm_model_name":"vit_so400m_patch14_siglip_224","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":16,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-SO400M-14-SigLIP-378",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":378,"timm_model_name":"vit_so400m_patch14_siglip_378","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-SO400M-14-SigLIP-384",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_so400m_patch14_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":32000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06}}})"},
            {"ViT-B-32-SigLIP2-256",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_base_patch32_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-B-32-SigLIP2-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-B-16-SigLIP2",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":224,"timm_model_name":"vit_base_patch16_siglip_224","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP2","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-B-16-SigLIP2-256",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_base_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP2-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-B-16-SigLIP2-384",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_base_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP2-384","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-B-16-SigLIP2-512",
             R"({"embed_dim":768,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":512,"timm_model_name":"vit_base_patch16_siglip_512","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-B-16-SigLIP2-512","tokenizer_kwargs":{"clean":"canonicalize"},"width":768,"heads":12,"layers":12,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-L-16-SigLIP2-256",
             R"({"embed_dim":1024,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_large_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-L-16-SigLIP2-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":1024,"heads":16,"layers":24,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-L-16-SigLIP2-384",
             R"({"embed_dim":1024,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_large_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-L-16-SigLIP2-384","tokenizer_kwargs":{"clean":"canonicalize"},"width":1024,"heads":16,"layers":24,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-L-16-SigLIP2-512",
             R"({"embed_dim":1024,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":512,"timm_model_name":"vit_large_patch16_siglip_512","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-L-16-SigLIP2-512","tokenizer_kwargs":{"clean":"canonicalize"},"width":1024,"heads":16,"layers":24,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-SO400M-14-SigLIP2",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":224,"timm_model_name":"vit_so400m_patch14_siglip_224","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-SO400M-14-SigLIP2","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-SO400M-14-SigLIP2-378",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":378,"timm_model_name":"vit_so400m_patch14_siglip_378","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-SO400M-14-SigLIP2-378","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-SO400M-16-SigLIP2-256",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_so400m_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-SO400M-16-SigLIP2-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-SO400M-16-SigLIP2-384",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_so400m_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-SO400M-16-SigLIP2-384","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-SO400M-16-SigLIP2-512",
             R"({"embed_dim":1152,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":512,"timm_model_name":"vit_so400m_patch16_siglip_512","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-SO400M-16-SigLIP2-512","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-gopt-16-SigLIP2-256",
             R"({"embed_dim":1536,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":256,"timm_model_name":"vit_giantopt_patch16_siglip_256","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-gopt-16-SigLIP2-256","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
            {"ViT-gopt-16-SigLIP2-384",
             R"({"embed_dim":1536,"init_logit_bias":-10,"custom_text":true,"vision_cfg":{"image_size":384,"timm_model_name":"vit_giantopt_patch16_siglip_384","timm_pool":"map","timm_proj":"none"},"text_cfg":{"context_length":64,"vocab_size":256000,"hf_tokenizer_name":"timm/ViT-gopt-16-SigLIP2-384","tokenizer_kwargs":{"clean":"canonicalize"},"width":1152,"heads":16,"layers":27,"mlp_ratio":3.7362,"no_causal_mask":true,"proj_bias":true,"pool_type":"last","norm_kwargs":{"eps":1e-06},"act_kwargs":{"approximate":"tanh"}}})"},
};
// Those that were published with QuickGELU too: OpenAI's nine, and DFN's and MetaCLIP's.
constexpr const char* kQuickGelu[] = {"RN50",     "RN101",    "RN50x4",       "RN50x16",  "RN50x64",      "ViT-B-32",
                                      "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14"};
constexpr const char* kQuickGeluSuffix = "-quickgelu";

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// What the published weights of a family were trained with (open_clip pretrained.py).
PreprocessConfig preprocess_of(const std::string& name) {
  PreprocessConfig p;
  if (contains(name, "SigLIP")) {
    p.mean = p.std = {0.5F, 0.5F, 0.5F};
    p.resize_mode = "squash";
  } else if (contains(name, "CLIPA")) {
    p.mean = {0.485F, 0.456F, 0.406F};
    p.std = {0.229F, 0.224F, 0.225F};
    p.interpolation = "bilinear";
    p.resize_mode = "squash";
  }
  return p;
}

}  // namespace

std::vector<std::string> builtin_model_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  for (const char* name : kQuickGelu) names.push_back(std::string(name) + kQuickGeluSuffix);
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<ModelConfig> builtin_model_config(const std::string& wanted) {
  std::string name = wanted;
  std::replace(name.begin(), name.end(), '/', '-');
  std::replace(name.begin(), name.end(), '@', '-');
  if (name == "ViT-L-14-336px") name = "ViT-L-14-336";  // as OpenAI calls it
  const std::string suffix = kQuickGeluSuffix;
  const bool quick = name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
  if (quick) {
    name.resize(name.size() - suffix.size());
    if (std::find(std::begin(kQuickGelu), std::end(kQuickGelu), name) == std::end(kQuickGelu)) return {};
  }
  for (const Preset& preset : kPresets) {
    if (name != preset.name) continue;
    ModelConfig config = parse_model_config(preset.json, "built-in " + name);
    config.quick_gelu = quick;
    config.preprocess = preprocess_of(name);
    return config;
  }
  return {};
}

}  // namespace twinlens
