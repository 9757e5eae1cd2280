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

// TestRevokedForGood has a revocation run out, which is no reason to take what was said before it.
func TestRevokedForGood(t *testing.T) {
	for name, test := range map[string]struct {
		names  func(*testpki.Services) []testpki.Option
		reason int
		after  Status
	}{
		"OCSP":         {byOCSP, ocsp.KeyCompromise, Revoked},
		"CRL":          {byCRL, ocsp.KeyCompromise, Revoked},
		"OCSP on hold": {byOCSP, ocsp.CertificateHold, Unavailable},
		"CRL on hold":  {byCRL, ocsp.CertificateHold, Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, test.names)
				w.s.Lifetime = 7 * 24 * time.Hour
				old := w.s.Staple(w.leaf)
				time.Sleep(24 * time.Hour)
				w.s.Revoke(w.leaf, test.reason)
				w.s.Lifetime = time.Hour
				require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
				time.Sleep(time.Hour + 2*time.Second)
				a, _ := w.checker().Local(w.leaf, w.issuer, nil)
				assert.Equal(t, test.after, a.Status)
				a, err := w.checker().Local(w.leaf, w.issuer, old)
				assert.Equal(t, test.after, a.Status)
				if test.after == Unavailable {
					assert.ErrorContains(t, err, "is older than one that says revoked")
				}
			})
		})
	}
}

// TestOlderThanKnown has a proxy keep what a responder said before it said revoked.
func TestOlderThanKnown(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 24 * time.Hour
		old := w.s.Staple(w.leaf)
		time.Sleep(time.Hour)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		w.s.Lifetime = time.Minute
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Minute + 2*time.Second)
		w.s.Instead = func(kind string, rw http.ResponseWriter, _ *http.Request) bool {
			if kind == "ocsp" {
				rw.Write(old)
			}
			return kind == "ocsp"
		}
		w.s.Lifetime = time.Hour
		w.s.CRL = func(l *testpki.List) { l.RevokedCertificateEntries = nil }
		a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
		assert.Equal(t, Good, a.Status, "by a CRL that is newer")
		assert.Equal(t, w.s.CRLURL(), a.Source)
		assert.Equal(t, []int{2, 1}, []int{w.s.Asked("GET ocsp"), w.s.Asked("POST ocsp")}, "the proxy is gone around")

		w = newWorld(t, byBoth)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		w.s.Lifetime = time.Minute
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Minute + 2*time.Second)
		w.s.Lifetime = time.Hour
		w.s.Instead = instead("ocsp", http.StatusNotFound)
		w.s.CRL = func(l *testpki.List) {
			l.ThisUpdate, l.RevokedCertificateEntries = time.Now().Add(-30*time.Minute), nil
		}
		a = w.checker().Ask(t.Context(), w.leaf, w.issuer)
		assert.Equal(t, Unavailable, a.Status)
		assert.ErrorContains(t, a.Err, "is older than one that says revoked")
		before := w.checker()
		before.Now = time.Now().Add(-10 * time.Minute)
		assert.Equal(t, Good, before.Ask(t.Context(), w.leaf, w.issuer).Status, "at a moment when nobody had said so")
	})
}

// TestStaplesAndMemory shows what a staple says where something is remembered.
func TestStaplesAndMemory(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		good := w.s.Staple(w.leaf)
		time.Sleep(time.Minute)
		w.s.Revoke(w.leaf, ocsp.KeyCompromise)
		revoked := w.s.Staple(w.leaf)
		w.s.OCSP = func(r *testpki.Response) { r.Singles[0].Status = ocsp.Unknown }
		unknown := w.s.Staple(w.leaf)

		for range 2 { // the second time it is remembered
			a, err := w.checker().Local(w.leaf, w.issuer, good)
			require.NoError(t, err)
			assert.Equal(t, Good, a.Status)
			assert.Equal(t, FromStaple, a.Source)
		}
		a, err := w.checker().Local(w.leaf, w.issuer, unknown)
		assert.ErrorContains(t, err, "not known to the OCSP responder")
		assert.Equal(t, Good, a.Status, "what is remembered still counts")
		assert.Equal(t, FromCache, a.Source)

		for range 2 {
			a, err = w.checker().Local(w.leaf, w.issuer, revoked)
			assert.ErrorContains(t, err, "says the stapled OCSP response")
			assert.Equal(t, err, a.Err)
			assert.Equal(t, Revoked, a.Status)
			assert.Equal(t, FromStaple, a.Source)
		}
		a, err = w.checker().Local(w.leaf, w.issuer, unknown)
		assert.Error(t, err)
		assert.Equal(t, Revoked, a.Status)

		w.cache = NewCache(1 << 20)
		w.s = w.ca.Serve(t)
		_, err = w.checker().Local(w.leaf, w.issuer, w.s.Staple(w.leaf))
		require.NoError(t, err)
		a, err = w.checker().Local(w.leaf, w.issuer, good)
		require.NoError(t, err)
		assert.Equal(t, FromStaple, a.Source, "a later one that says the same is known, and does not matter")

		w.cache = NewCache(1 << 20)
		_, err = w.checker().Local(w.leaf, w.issuer, good)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		a, err = w.checker().Local(w.leaf, w.issuer, good)
		assert.ErrorContains(t, err, "ran out on", "remembered or not")
		assert.Equal(t, Unavailable, a.Status)
	})
}

// TestRevocationAsOldAsGood has two responses of the same moment, by a delegate whose certificate is newer than both.
func TestRevocationAsOldAsGood(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		made := time.Now()
		time.Sleep(time.Hour)
		delegate := signing(t, w.ca, testpki.Valid(0, time.Hour))
		w.s.OCSP = func(r *testpki.Response) {
			by(delegate)(r)
			r.Singles[0].ThisUpdate = made
		}
		good := w.s.Staple(w.leaf)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		made = made.Add(time.Minute)
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		a, _ := w.checker().Local(w.leaf, w.issuer, good)
		assert.Equal(t, Revoked, a.Status)
	})
}

// TestGETThatRanOut has a proxy keep a response beyond its end.
func TestGETThatRanOut(t *testing.T) {
	w := newWorld(t, byOCSP)
	method := ""
	w.s.Instead = func(_ string, _ http.ResponseWriter, r *http.Request) bool { method = r.Method; return false }
	w.s.OCSP = func(r *testpki.Response) {
		if method == http.MethodGet {
			r.Singles[0].ThisUpdate, r.Singles[0].NextUpdate = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
		}
	}
	assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
	assert.Equal(t, []int{1, 1}, []int{w.s.Asked("GET ocsp"), w.s.Asked("POST ocsp")})
}

// TestMomentsApart has two ask the same at the same time for moments of which an answer counts at one.
func TestMomentsApart(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Instead = func(string, http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
		past := w.checker()
		past.Now = time.Now().Add(-24 * time.Hour)
		var both sync.WaitGroup
		both.Go(func() {
			a := past.Ask(t.Context(), w.leaf, w.issuer)
			assert.Equal(t, Unavailable, a.Status)
			assert.ErrorContains(t, a.Err, "is not valid before")
		})
		time.Sleep(time.Millisecond)
		both.Go(func() { assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status) })
		both.Wait()
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status, "it is no failure")
	})
}

// TestOneRequestForAllWhoFail has many ask who has no answer, at the same time and a little later.
func TestOneRequestForAllWhoFail(t *testing.T) {
	for name, test := range map[string]struct {
		names func(*testpki.Services) []testpki.Option
		kind  string
		most  int
	}{"OCSP": {byOCSP, "ocsp", 2}, "CRL": {byCRL, "crl", 1}} { // GET and POST
		t.Run(name, func(t *testing.T) {
			for range 20 {
				w := newWorld(t, test.names)
				w.s.Instead = instead(test.kind, http.StatusServiceUnavailable)
				var all sync.WaitGroup
				for range 64 {
					all.Go(func() { assert.Equal(t, Unavailable, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status) })
				}
				all.Wait()
				require.Equal(t, test.most, w.s.Requests())
			}
		})
	}
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

	// What another responder says that has not heard of it does not count, nor what a proxy has kept.
	another := w.ca.Serve(t)
	another.OCSP = func(r *testpki.Response) { r.Singles[0].ThisUpdate = time.Now().Add(-time.Hour) }
	old := another.Staple(w.leaf)
	w.s.Instead = func(kind string, rw http.ResponseWriter, _ *http.Request) bool {
		if kind != "ocsp" {
			rw.Write(old)
		}
		return kind != "ocsp"
	}
	_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, 1)
	assert.ErrorContains(t, err, "the certificate is revoked")
	assert.NotContains(t, err.Error(), "/down", "nobody else is asked")
	_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
	assert.ErrorContains(t, err, "is older than one that says revoked")

	_, _, err = w.checker().Staple(t.Context(), w.issuer, w.issuer, 0)
	assert.ErrorContains(t, err, "names no OCSP responder")
}
