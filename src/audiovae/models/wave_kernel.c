/* WaveNet (nn/wavenet.py) one sample at a time, in one thread: wave_kernel.py packs the weights and calls.
 *
 * A sample reads every weight, so the weights' bytes set the speed. What a layer hears from `dilation` samples ago is
 * known that early: BATCH samples share one reading of the weights for it. Each matrix is [inputs][outputs], outputs a
 * multiple of 16, and is read from front to back. Vectors are GCC's and Clang's own type of 16 floats, which they map
 * to what the processor has.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4)));
#define INLINE static inline __attribute__((always_inline))
#ifdef __AVX512F__
#define TILE 8 /* accumulators at once: as many as hide an FMA's latency and fit the registers */
#else
#define TILE 4
#endif
#define BATCH 8

enum { MU_LAW, LOGISTIC_MIXTURE };

typedef struct {
  int32_t width;      /* W, a multiple of 16 */
  int32_t layers;     /* L */
  int32_t outputs;    /* P, a multiple of 16 */
  int32_t family;     /* of the next sample's distribution */
  int32_t parameters; /* of it; the rest of the outputs is padding */
  float floor;        /* of a log scale */
  const int32_t *dilations; /* [L] */
  const char *past;         /* each layer's tap for the past [W][2 W] */
  const char *weights;      /* each layer's tap for the present [W][2 W] and mix [W][2 W], head [W][W], last [W][P] */
  const float *biases; /* first's weight [W] and bias [W], each layer's mix [2 W], last [P] */
  const float *values; /* [256], the sample and ... */
  const float *bent;   /* [256], what the net hears of it: of each mu-law level */
} Net;

typedef struct {
  float *rings;       /* each layer's last `dilation` inputs, [dilation][W] */
  int32_t *places;    /* [L], the oldest one in each ring */
  float *ahead;       /* [L][BATCH][2 W], room for what the past adds to the next samples */
  float *heard;       /* [1], the sample before the next one, on mu-law's curve */
} State;

INLINE v16 pick(i16 mask, v16 a, v16 b) { return (v16)((mask & (i16)a) | (~mask & (i16)b)); }

/* e^x to 1e-7, after Cephes: x = n log 2 + r, e^r by a polynomial, 2^n by the exponent's bits. */
INLINE v16 exponential(v16 x) {
  const v16 zero = {0};
  x = pick(x > 88.0f + zero, 88.0f + zero, x);
  x = pick(x < -87.0f + zero, -87.0f + zero, x);
  v16 n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23 rounds to the nearest whole */
  v16 r = x - n * 0.693359375f + n * 2.12194440e-4f;
  v16 y = 1.9875691500e-4f + zero;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  i16 power = (__builtin_convertvector(n, i16) + 127) << 23;
  return y * (v16)power;
}

#define MATRIX(inputs, outputs) ((size_t)(inputs) * (outputs) * sizeof(float) >> bf16) /* its bytes */

/* sum += input i times a word of weights. A bf16 is a float32's upper half; a word holds those of inputs i and i + 1,
 * the first below the second. */
#define ADD_WORD(sum, x)                            \
  {                                                 \
    if (!bf16) {                                    \
      sum += (x)[i] * word;                         \
    } else {                                        \
      sum += (x)[i] * (v16)((i16)word << 16);       \
      sum += (x)[i + 1] * (v16)((i16)word & -65536); \
    }                                               \
  }

/* Columns o to o + 16 n of y += x W. */
#define COLUMNS(n)                                                                     \
  for (; o + 16 * n <= outputs; o += 16 * n) {                                         \
    v16 sum[n];                                                                        \
    for (int k = 0; k < n; k++) sum[k] = *(v16 *)(y + o + 16 * k);                     \
    for (int i = 0; i < inputs; i += 1 + bf16) {                                       \
      const char *row = weights + ((size_t)(i >> bf16) * outputs + o) * sizeof(float); \
      for (int k = 0; k < n; k++) {                                                    \
        const v16 word = *(const v16 *)(row + 64 * k);                                 \
        ADD_WORD(sum[k], x)                                                            \
      }                                                                                \
    }                                                                                  \
    for (int k = 0; k < n; k++) *(v16 *)(y + o + 16 * k) = sum[k];                     \
  }

/* y += x W.  Returns where the next matrix begins. */
INLINE const char *add_product(float *y, const float *x, const char *weights, int inputs, int outputs, int bf16) {
  int o = 0;
  COLUMNS(TILE)
  COLUMNS(4)
  COLUMNS(2)
  COLUMNS(1)
  return weights + MATRIX(inputs, outputs);
}

/* g = tanh(a) sigmoid(b), with one division; a, b and g [width], in the order a, b. */
INLINE void gate(float *g, const float *a, int width) {
  for (int o = 0; o < width; o += 16) {
    v16 x = *(const v16 *)(a + o), zero = {0};
    x = pick(x > 15.0f + zero, 15.0f + zero, x); /* tanh is 1 from there on */
    v16 e = exponential(2.0f * x), f = exponential(-*(const v16 *)(a + width + o));
    *(v16 *)(g + o) = (e - 1.0f) / ((e + 1.0f) * (1.0f + f));
  }
}

INLINE void rectify(float *x, int n) {
  for (int o = 0; o < n; o++) x[o] = x[o] > 0 ? x[o] : 0;
}

/* What the past adds in each layer that knows it to the next BATCH samples. */
INLINE void look_ahead(const Net *net, State *state, int bf16) {
  const int w = net->width;
  const float *ring = state->rings, *x[BATCH];
  const char *weights = net->past;
  float *y = state->ahead;
  for (int l = 0; l < net->layers; l++) {
    const int dilation = net->dilations[l];
    for (int n = 0; n < BATCH; n++) x[n] = ring + (size_t)((state->places[l] + n) % dilation) * w;
    for (int o = 0; o < 2 * w && dilation >= BATCH; o += 32) {
      v16 sum[BATCH][2] = {0};
      for (int i = 0; i < w; i += 1 + bf16) {
        const char *row = weights + ((size_t)(i >> bf16) * 2 * w + o) * sizeof(float);
        for (int k = 0; k < 2; k++) {
          const v16 word = *(const v16 *)(row + 64 * k);
          for (int n = 0; n < BATCH; n++) ADD_WORD(sum[n][k], x[n])
        }
      }
      for (int n = 0; n < BATCH; n++) memcpy(y + 2 * n * w + o, sum[n], sizeof sum[n]);
    }
    ring += (size_t)dilation * w;
    weights += MATRIX(w, 2 * w);
    y += BATCH * 2 * w;
  }
}

/* One sample, the n-th after looking ahead: what the net says before it. `condition` holds each layer's [2 W] and the
 * head's [W]. */
INLINE void step(const Net *net, State *state, const float *condition, int n, float *p, int bf16) {
  const int w = net->width;
  const float *bias = net->biases, *ahead = state->ahead + 2 * n * w;
  float both[2 * w], g[w], y[2 * w];
  float *h = both + w; /* `both` gathers the way to the end and the way to the next layer */
  memset(both, 0, w * sizeof *both);
  for (int o = 0; o < w; o++) h[o] = bias[o] * *state->heard + bias[w + o];
  bias += 2 * w;
  float *ring = state->rings;
  const char *past = net->past, *weights = net->weights;
  for (int l = 0; l < net->layers; l++) {
    float *oldest = ring + (size_t)state->places[l] * w;
    memcpy(y, condition, 2 * w * sizeof *y);
    if (net->dilations[l] < BATCH)
      add_product(y, oldest, past, w, 2 * w, bf16);
    else
      for (int o = 0; o < 2 * w; o++) y[o] += ahead[o];
    weights = add_product(y, h, weights, w, 2 * w, bf16);
    memcpy(oldest, h, w * sizeof *h);
    if (++state->places[l] == net->dilations[l]) state->places[l] = 0;
    gate(g, y, w);
    for (int o = 0; o < 2 * w; o++) both[o] += bias[o];
    weights = add_product(both, g, weights, w, 2 * w, bf16);
    condition += 2 * w;
    bias += 2 * w;
    ahead += BATCH * 2 * w;
    ring += (size_t)net->dilations[l] * w;
    past += MATRIX(w, 2 * w);
  }
  memcpy(y, condition, w * sizeof *y);
  rectify(both, w);
  weights = add_product(y, both, weights, w, w, bf16);
  rectify(y, w);
  memcpy(p, bias, net->outputs * sizeof *p);
  add_product(p, y, weights, w, net->outputs, bf16);
}

/* Draw from a softmax by inverting its cumulative distribution, or take its largest. */
static int choose(const float *logits, int n, double uniform, float temperature) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  if (temperature == 0) return best;
  float e[n + 15];
  double total = 0, sum = 0;
  for (int o = 0; o < n; o += 16) {
    float scaled[16] = {0};
    for (int i = o; i < n && i < o + 16; i++) scaled[i - o] = (logits[i] - logits[best]) / temperature;
    *(v16 *)(e + o) = exponential(*(v16 *)scaled);
  }
  for (int i = 0; i < n; i++) total += e[i];
  for (int i = 0; i < n; i++)
    if ((sum += e[i]) >= uniform * total) return i;
  return n - 1;
}

static float bend(float x) {
  float size = log1pf(255.0f * fminf(fabsf(x), 1.0f)) / log1pf(255.0f);
  return x < 0 ? -size : size;
}

static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }

/* A value of 16-bit sound. */
static float draw_mixture(const Net *net, const float *p, const double *uniforms, float temperature) {
  const int k = net->parameters / 3, chosen = choose(p, k, uniforms[0], temperature);
  const double u = fmin(fmax(uniforms[1], 1e-12), 1 - 1e-12);
  const double scale = exp(softplus(p[2 * k + chosen] - net->floor) + net->floor);
  const double x = p[k + chosen] + temperature * scale * (log(u) - log1p(-u));
  return (float)fmin(fmax(nearbyint(x * 32768), -32768), 32767) / 32768;
}

INLINE void run(const Net *net, State *state, const float *condition, int64_t samples, int64_t hop,
                const double *uniforms, float temperature, const float *given, float *said,
                float *x, int bf16) {
  const size_t frame = (size_t)net->width * (2 * net->layers + 1);
  float p[net->outputs];
  for (int64_t t = 0; t < samples; t++) {
    if (t % BATCH == 0) look_ahead(net, state, bf16);
    step(net, state, condition + (size_t)(t / hop) * frame, t % BATCH, p, bf16);
    if (said) memcpy(said + t * net->parameters, p, net->parameters * sizeof *p);
    if (given || net->family == LOGISTIC_MIXTURE) {
      x[t] = given ? given[t] : draw_mixture(net, p, uniforms + 2 * t, temperature);
      *state->heard = bend(x[t]);
    } else {
      const int level = choose(p, net->parameters, uniforms[2 * t], temperature);
      x[t] = net->values[level];
      *state->heard = net->bent[level];
    }
  }
}

/* condition [samples / hop][W (2 L + 1)], uniforms [samples][2] -> x [samples]. With `given` [samples] that is what was
 * said, and the net only listens; `said` [samples][parameters], if not NULL, is what it said before each sample. */
void wave_fp32(const Net *net, State *state, const float *condition, int64_t samples, int64_t hop,
               const double *uniforms, float temperature, const float *given, float *said, float *x) {
  run(net, state, condition, samples, hop, uniforms, temperature, given, said, x, 0);
}

/* The same with weights in bf16; everything else stays in float32. */
void wave_bf16(const Net *net, State *state, const float *condition, int64_t samples, int64_t hop,
               const double *uniforms, float temperature, const float *given, float *said, float *x) {
  run(net, state, condition, samples, hop, uniforms, temperature, given, said, x, 1);
}
