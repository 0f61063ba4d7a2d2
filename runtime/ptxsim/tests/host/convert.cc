// Hashes of the conversions of cuda_fp8.h, cuda_fp16.h and cuda_bf16.h, host code, over inputs that hold
// every rounding case. One line for each conversion and block of inputs: name, block, FNV-1a of the results.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

struct Hash {
  uint64_t h = 0xcbf29ce484222325u;
  void add(uint32_t v, int bytes) {
    for (int i = 0; i < bytes; i++) h = (h ^ (v >> (8 * i) & 0xff)) * 0x100000001b3u;
  }
};

static void line(const char* name, unsigned block, const Hash& h) {
  std::printf("%s %u %016llx\n", name, block, static_cast<unsigned long long>(h.h));
}

template <class T>
static uint16_t bits(T v) {
  uint16_t out;
  std::memcpy(&out, &v, 2);
  return out;
}

int main() {
  // Just below, at and above the middle between neighbours for 3, 2, 10 and 7 bits of fraction.
  const uint32_t lows[16] = {0,      1,      0x0fff, 0x1000, 0x1001, 0x2000, 0x2fff, 0x3000,
                             0x3001, 0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xf001, 0xffff};
  for (unsigned block = 0; block < 64; block++) {
    Hash e4, e5, rn, rz, rd, ru, bn, bz;
    for (unsigned i = 0; i < 1024 * 16; i++) {
      uint32_t word = (block << 10 | i / 16) << 16 | lows[i % 16];
      float x;
      std::memcpy(&x, &word, 4);
      e4.add(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3), 1);
      e5.add(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2), 1);
      rn.add(bits(__float2half_rn(x)), 2);
      rz.add(bits(__float2half_rz(x)), 2);
      rd.add(bits(__float2half_rd(x)), 2);
      ru.add(bits(__float2half_ru(x)), 2);
      bn.add(bits(__float2bfloat16_rn(x)), 2);
      bz.add(bits(__float2bfloat16_rz(x)), 2);
    }
    line("f32_e4m3", block, e4);
    line("f32_e5m2", block, e5);
    line("f32_f16_rn", block, rn);
    line("f32_f16_rz", block, rz);
    line("f32_f16_rm", block, rd);
    line("f32_f16_rp", block, ru);
    line("f32_bf16_rn", block, bn);
    line("f32_bf16_rz", block, bz);
  }
  for (unsigned block = 0; block < 64; block++) {
    Hash e4, e5, f32;
    for (unsigned i = 0; i < 1024; i++) {
      __half_raw h;
      h.x = static_cast<unsigned short>(block << 10 | i);
      e4.add(__nv_cvt_halfraw_to_fp8(h, __NV_SATFINITE, __NV_E4M3), 1);
      e5.add(__nv_cvt_halfraw_to_fp8(h, __NV_SATFINITE, __NV_E5M2), 1);
      float x = __half2float(__half(h));
      uint32_t word;
      std::memcpy(&word, &x, 4);
      f32.add(x == x ? word : 0x7fffffffu, 4);
    }
    line("f16_e4m3", block, e4);
    line("f16_e5m2", block, e5);
    line("f16_f32", block, f32);
  }
  Hash e4, e5;
  for (unsigned i = 0; i < 256; i++) {
    e4.add(__nv_cvt_fp8_to_halfraw(static_cast<unsigned char>(i), __NV_E4M3).x, 2);
    e5.add(__nv_cvt_fp8_to_halfraw(static_cast<unsigned char>(i), __NV_E5M2).x, 2);
  }
  line("e4m3_f16", 0, e4);
  line("e5m2_f16", 0, e5);
}
