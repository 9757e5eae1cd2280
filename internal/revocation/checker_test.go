package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream/internal/fetch"
	"github.com/sslstream/sslstream/internal/testpki"
)

// world is a CA with its services and a certificate that names them.
type world struct {
	ca     *testpki.Authority
	issuer *x509.Certificate
	s      *testpki.Services
	leaf   *x509.Certificate
	cache  *Cache
	client *http.Client
}

func newWorld(t *testing.T, names func(*testpki.Services) []testpki.Option) *world {
	t.Helper()
	w := &world{ca: testpki.Root(t, "CA"), cache: NewCache(1 << 20)}
	w.issuer, w.s = w.ca.Certificate, w.ca.Serve(t)
	w.leaf = w.ca.Issue(t, "leaf.example", names(w.s)...).Leaf
	w.client = testpki.Client(w.s)
	return w
}

func (w *world) checker() *Checker {
	return &Checker{Cache: w.cache, Client: w.client, Budget: &fetch.Budget{}, Now: time.Now()}
}

func byOCSP(s *testpki.Services) []testpki.Option { return []testpki.Option{testpki.OCSP(s.OCSPURL())} }
func byCRL(s *testpki.Services) []testpki.Option  { return []testpki.Option{testpki.CRL(s.CRLURL())} }
func byBoth(s *testpki.Services) []testpki.Option { return append(byOCSP(s), byCRL(s)...) }

// instead answers a kind of request with this status.
func instead(kind string, status int) func(string, http.ResponseWriter, *http.Request) bool {
	return func(k string, w http.ResponseWriter, _ *http.Request) bool {
		if k == kind {
			w.WriteHeader(status)
		}
		return k == kind
	}
}

// hang lets a kind of request wait for its end.
func hang(kind string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(k string, _ http.ResponseWriter, r *http.Request) bool {
		if k == kind {
			<-r.Context().Done()
		}
		return k == kind
	}
}

func TestOCSPIsAskedFirst(t *testing.T) {
	w := newWorld(t, byBoth)
	a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
	assert.Equal(t, Good, a.Status)
	assert.Equal(t, w.s.OCSPURL(), a.Source)
	assert.Equal(t, []int{1, 0}, []int{w.s.Asked("GET ocsp"), w.s.Asked("crl")})
}

func TestCRLIsAskedWhereOCSPHasNoAnswer(t *testing.T) {
	for name, answer := range map[string]func(string, http.ResponseWriter, *http.Request) bool{
		"not found": instead("ocsp", http.StatusNotFound),
		"garbage": func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			if kind == "ocsp" {
				w.Write([]byte("<html>"))
			}
			return kind == "ocsp"
		},
		"nothing": instead("ocsp", http.StatusOK),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, byBoth)
			w.s.Instead = answer
			w.s.Revoke(w.leaf, ocsp.Superseded)
			a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
			assert.Equal(t, Revoked, a.Status)
			assert.Equal(t, ocsp.Superseded, a.Reason)
			assert.Equal(t, w.s.CRLURL(), a.Source)
		})
	}
}

func TestUnknownIsFinal(t *testing.T) {
	w := newWorld(t, byBoth)
	w.s.Forget(w.leaf)
	for range 2 {
		a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
		assert.Equal(t, Unknown, a.Status)
		assert.Equal(t, w.s.OCSPURL(), a.Source)
	}
	assert.Equal(t, 1, w.s.Requests(), "it is not asked again at once")
}

// TestGETAndPOST shows what falls back to what.
func TestGETAndPOST(t *testing.T) {
	only := func(method string) func(string, http.ResponseWriter, *http.Request) bool {
		return func(_ string, w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method != method
		}
	}
	t.Run("GET", func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Instead = only(http.MethodGet)
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		assert.Equal(t, 1, w.s.Requests())
	})
	t.Run("POST where GET is refused", func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Instead = only(http.MethodPost)
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		assert.Equal(t, []int{1, 1}, []int{w.s.Asked("GET ocsp"), w.s.Asked("POST ocsp")})
	})
	t.Run("POST where the request is long", func(t *testing.T) {
		w := newWorld(t, func(s *testpki.Services) []testpki.Option {
			return append(byOCSP(s), testpki.Template(func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 150) }))
		})
		w.leaf.OCSPServer = []string{w.s.OCSPURL() + "?ca=1"}
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		assert.Equal(t, []int{0, 1}, []int{w.s.Asked("GET ocsp"), w.s.Asked("POST ocsp")})
	})
}

func TestNothingToAsk(t *testing.T) {
	w := newWorld(t, func(*testpki.Services) []testpki.Option {
		return []testpki.Option{testpki.OCSP("ldap://ca.example", "ocsp", "http:///"), testpki.CRL("file:///etc/passwd", "ftp://ca.example/crl")}
	})
	a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
	assert.Equal(t, Unavailable, a.Status)
	assert.ErrorContains(t, a.Err, "names no OCSP responder and no CRL")
	assert.Empty(t, a.Source)
}

// TestMemory shows how long answers and failures are remembered, and that failures of who asks are none.
func TestMemory(t *testing.T) {
	ask := func(t *testing.T, w *world) Answer { return w.checker().Ask(t.Context(), w.leaf, w.issuer) }
	local := func(w *world) Answer { a, _ := w.checker().Local(w.leaf, w.issuer, nil); return a }
	for name, names := range map[string]func(*testpki.Services) []testpki.Option{"OCSP": byOCSP, "CRL": byCRL} {
		t.Run(name+" until nextUpdate", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				assert.Equal(t, Unavailable, local(w).Status)
				require.Equal(t, Good, ask(t, w).Status)
				time.Sleep(time.Hour - 2*time.Second)
				a := local(w)
				assert.Equal(t, Good, a.Status)
				assert.Equal(t, FromCache, a.Source)
				time.Sleep(3 * time.Second)
				assert.Equal(t, Unavailable, local(w).Status, "no grace")
				assert.Equal(t, Good, ask(t, w).Status)
				assert.Equal(t, 2, w.s.Requests())
			})
		})
		t.Run(name+" failures", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				down := true
				w.s.Instead = func(_ string, rw http.ResponseWriter, _ *http.Request) bool {
					if down {
						rw.WriteHeader(http.StatusServiceUnavailable)
					}
					return down
				}
				a := ask(t, w)
				assert.Equal(t, Unavailable, a.Status)
				assert.ErrorContains(t, a.Err, "503")
				made := w.s.Requests()
				down = false
				time.Sleep(failureMemory - time.Second)
				a = ask(t, w)
				assert.ErrorContains(t, a.Err, "not asked again so soon")
				assert.Equal(t, made, w.s.Requests())
				time.Sleep(2 * time.Second)
				assert.Equal(t, Good, ask(t, w).Status)
			})
		})
		t.Run(name+" that has run out", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				w.s.Lifetime = time.Nanosecond
				w.s.OCSP = func(r *testpki.Response) { r.Singles[0].NextUpdate = time.Now() }
				w.s.CRL = func(l *testpki.List) { l.NextUpdate = time.Now().Add(time.Second) }
				c := w.checker()
				c.Now = c.Now.Add(time.Minute)
				time.Sleep(time.Minute)
				require.Equal(t, Good, ask(t, w).Status, "it counts for a moment")
				time.Sleep(time.Minute)
				c.Now = time.Now().Add(time.Minute)
				assert.ErrorContains(t, c.Ask(t.Context(), w.leaf, w.issuer).Err, "ran out on")
			})
		})
		t.Run(name+" silence", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				w.s.Instead = hang(strings.ToLower(name))
				within := func(d time.Duration) error {
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					return w.checker().Ask(ctx, w.leaf, w.issuer).Err
				}
				assert.ErrorIs(t, within(patience-time.Second), context.DeadlineExceeded)
				w.s.Instead = nil
				assert.NoError(t, within(time.Second), "who had no patience does not speak for others")
				w = newWorld(t, names)
				w.s.Instead = hang(strings.ToLower(name))
				assert.ErrorIs(t, within(patience), context.DeadlineExceeded)
				w.s.Instead = nil
				assert.ErrorContains(t, within(time.Second), "not asked again so soon")
				synctest.Wait()
			})
		})
		t.Run(name+" cancelled", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				w.s.Instead = hang(strings.ToLower(name))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, cancel)
				assert.ErrorIs(t, w.checker().Ask(ctx, w.leaf, w.issuer).Err, context.Canceled)
				synctest.Wait()
				w.s.Instead = nil
				assert.Equal(t, Good, ask(t, w).Status)
			})
		})
	}
}

// TestTimeIsShared lets a responder hang: the CRL gets its time.
func TestTimeIsShared(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Instead = hang("ocsp")
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		a := w.checker().Ask(ctx, w.leaf, w.issuer)
		assert.Equal(t, Good, a.Status)
		assert.Equal(t, w.s.CRLURL(), a.Source)
		assert.Equal(t, 7500*time.Millisecond, time.Since(began))
	})
}

func TestOneRequestForAllWhoAsk(t *testing.T) {
	for name, names := range map[string]func(*testpki.Services) []testpki.Option{"OCSP": byOCSP, "CRL": byCRL} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				w.s.Instead = func(string, http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() { assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status) })
				}
				all.Wait()
				assert.Equal(t, 1, w.s.Requests())
			})
		})
	}
}

// TestRevocationWins shows which of several answers counts.
func TestRevocationWins(t *testing.T) {
	w := newWorld(t, byBoth)
	old := w.s.Staple(w.leaf)
	w.s.Revoke(w.leaf, ocsp.KeyCompromise)
	w.s.Instead = instead("ocsp", http.StatusNotFound)
	require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status, "by the CRL")

	a, _ := w.checker().Local(w.leaf, w.issuer, old)
	assert.Equal(t, Revoked, a.Status, "the peer may staple an older response that still counts")
	assert.Equal(t, FromCache, a.Source)
	a, _ = w.checker().Local(w.leaf, w.issuer, nil)
	assert.Equal(t, Revoked, a.Status, "and have it remembered")
}

// TestOlderDoesNotReplaceNewer has a revoked certificate's peer staple what was good.
func TestOlderDoesNotReplaceNewer(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		old := w.s.Staple(w.leaf)
		time.Sleep(time.Minute)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		for range 2 {
			a, _ := w.checker().Local(w.leaf, w.issuer, old)
			assert.Equal(t, Revoked, a.Status)
		}
		time.Sleep(time.Minute)
		lifted := newStaple(t, w)
		a, err := w.checker().Local(w.leaf, w.issuer, lifted)
		require.NoError(t, err)
		assert.Equal(t, Good, a.Status, "a newer response says that it is not on hold any more")
	})
}

// newStaple is what the responder says once nothing is revoked any more.
func newStaple(t *testing.T, w *world) []byte {
	w.s = w.ca.Serve(t)
	return w.s.Staple(w.leaf)
}

// TestBudget lets a certificate name more services than may be asked.
func TestBudget(t *testing.T) {
	w := newWorld(t, func(s *testpki.Services) []testpki.Option {
		many := make([]string, 30)
		for i := range many {
			many[i] = s.Base + "/crl/" + strings.Repeat("x", i)
		}
		return []testpki.Option{testpki.CRL(many...)}
	})
	w.s.Instead = instead("crl", http.StatusNotFound)
	c := w.checker()
	assert.Equal(t, Unavailable, c.Ask(t.Context(), w.leaf, w.issuer).Status)
	assert.Equal(t, maxServices, w.s.Requests())
	for range 20 {
		w.cache = NewCache(1 << 20)
		c.Cache = w.cache
		c.Ask(t.Context(), w.leaf, w.issuer)
	}
	assert.Equal(t, fetch.MaxRequests, w.s.Requests())
	assert.ErrorIs(t, c.Ask(t.Context(), w.leaf, w.issuer).Err, fetch.ErrBudget)
	c = w.checker()
	assert.False(t, errors.Is(c.Ask(t.Context(), w.leaf, w.issuer).Err, fetch.ErrBudget), "another validation may ask again")
}

// TestMemoryIsBounded remembers more than there is room for.
func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(10 << 10)
	for i := range 100 {
		m.put(i, &Answer{Raw: make([]byte, 512)})
		require.NotNil(t, m.get(0), "what is asked for again and again stays")
	}
	assert.LessOrEqual(t, m.weight, m.bound)
	assert.Len(t, m.entries, 10)
	assert.Nil(t, m.get(50))
	assert.NotNil(t, m.get(99))
	m.put(1, &Answer{Raw: make([]byte, 20<<10)})
	assert.Nil(t, m.get(1), "what is larger than all the room")
	assert.NotNil(t, m.get(99), "drives nobody out")
}

// TestStaple asks for responses to staple.
func TestStaple(t *testing.T) {
	w := newWorld(t, func(s *testpki.Services) []testpki.Option {
		return []testpki.Option{testpki.OCSP(s.Base+"/down", s.OCSPURL(), "ldap://ca.example")}
	})
	a, at, err := w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
	require.NoError(t, err)
	assert.Equal(t, 1, at)
	stapled, err := w.checker().Local(w.leaf, w.issuer, a.Raw)
	require.NoError(t, err)
	assert.Equal(t, Good, stapled.Status)
	before := w.s.Requests()
	_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, at)
	require.NoError(t, err)
	assert.Equal(t, before+1, w.s.Requests(), "the one that answered is asked first")
	w.s.Revoke(w.leaf, 0)
	_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, at)
	assert.ErrorContains(t, err, "the certificate is revoked")
	_, _, err = w.checker().Staple(t.Context(), w.issuer, w.issuer, 0)
	assert.ErrorContains(t, err, "names no OCSP responder")
}
