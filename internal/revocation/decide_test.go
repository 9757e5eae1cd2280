package revocation

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream/internal/fetch"
	"github.com/sslstream/sslstream/internal/testpki"
)

// This file has several answers about one certificate, of which one counts.

// TestDecide has every pair of answers, in both orders.
func TestDecide(t *testing.T) {
	now := time.Now()
	answer := func(status Status, reason int, madeAgo, endsIn time.Duration) *Answer {
		return &Answer{Status: status, Reason: reason, Made: now.Add(-madeAgo), From: now.Add(-madeAgo), Until: now.Add(endsIn)}
	}
	since := func(a *Answer, in time.Duration) *Answer {
		a.RevokedAt = now.Add(in)
		return a
	}
	const hold = ocsp.CertificateHold
	for _, tc := range []struct {
		name string
		a, b *Answer
		want int // 0: a, 1: b, -1: none
	}{
		{"good alone", answer(Good, 0, time.Hour, time.Hour), nil, 0},
		{"good that ran out", answer(Good, 0, time.Hour, -1), nil, -1},
		{"good of the future", answer(Good, 0, -time.Hour, 2*time.Hour), nil, -1},
		{"revoked, which ran out", answer(Revoked, ocsp.KeyCompromise, time.Hour, -1), nil, 0},
		{"revoked in the future", answer(Revoked, ocsp.KeyCompromise, -time.Hour, 2*time.Hour), nil, -1},
		{"revoked before, as somebody said later", since(answer(Revoked, ocsp.KeyCompromise, -time.Hour, 2*time.Hour), -time.Minute), answer(Good, 0, time.Hour, time.Hour), 0},
		{"revoked after, as somebody said later", since(answer(Revoked, ocsp.KeyCompromise, -2*time.Hour, 3*time.Hour), time.Minute), answer(Good, 0, time.Hour, time.Hour), 1},
		{"on hold before, as somebody said later", since(answer(Revoked, hold, -time.Hour, 2*time.Hour), -time.Minute), answer(Good, 0, time.Hour, time.Hour), 1},
		{"on hold", answer(Revoked, hold, time.Hour, time.Hour), nil, 0},
		{"on hold, which ran out", answer(Revoked, hold, time.Hour, -1), nil, -1},
		{"unknown", answer(Unknown, 0, time.Hour, time.Hour), nil, -1},
		{"the later good", answer(Good, 0, 2*time.Hour, 3*time.Hour), answer(Good, 0, time.Hour, time.Hour), 1},
		{"the good that counts", answer(Good, 0, 2*time.Hour, 3*time.Hour), answer(Good, 0, time.Hour, -1), 0},
		{"revoked, then good", answer(Revoked, ocsp.Superseded, 2*time.Hour, -1), answer(Good, 0, time.Hour, time.Hour), 0},
		{"good, then revoked", answer(Good, 0, 2*time.Hour, time.Hour), answer(Revoked, ocsp.Superseded, time.Hour, -1), 1},
		{"on hold, then good", answer(Revoked, hold, 2*time.Hour, time.Hour), answer(Good, 0, time.Hour, time.Hour), 1},
		{"on hold, then good, which ran out", answer(Revoked, hold, 2*time.Hour, time.Hour), answer(Good, 0, time.Hour, -1), 0},
		{"good, then on hold", answer(Good, 0, 2*time.Hour, time.Hour), answer(Revoked, hold, time.Hour, time.Hour), 1},
		{"good, then on hold, which ran out", answer(Good, 0, 2*time.Hour, time.Hour), answer(Revoked, hold, time.Hour, -1), -1},
		{"good and on hold at once", answer(Good, 0, time.Hour, time.Hour), answer(Revoked, hold, time.Hour, time.Hour), 1},
		{"on hold twice, the later ran out", answer(Revoked, hold, 2*time.Hour, time.Hour), answer(Revoked, hold, time.Hour, -1), 0},
		{"on hold, then revoked", answer(Revoked, hold, time.Hour, time.Hour), answer(Revoked, ocsp.KeyCompromise, 2*time.Hour, -1), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := map[int]*Answer{0: tc.a, 1: tc.b, -1: nil}[tc.want]
			assert.Same(t, want, decide(now, tc.a, tc.b))
			assert.Same(t, want, decide(now, tc.b, tc.a))
		})
	}
	twin := answer(Good, 0, time.Hour, time.Hour)
	same := *twin
	assert.Same(t, twin, decide(now, twin, &same), "of equals the first")
}

// TestReplaces shows what is kept of two answers.
func TestReplaces(t *testing.T) {
	now := time.Now()
	made := now.Add(-time.Hour)
	good := func(at time.Time, ends time.Duration) *Answer {
		return &Answer{Status: Good, Made: at, Until: now.Add(ends)}
	}
	revoked := func(at time.Time, reason int, ends time.Duration) *Answer {
		return &Answer{Status: Revoked, Reason: reason, Made: at, Until: now.Add(ends)}
	}
	const hold = ocsp.CertificateHold
	later, earlier := made.Add(time.Minute), made.Add(-time.Minute)
	for _, tc := range []struct {
		name     string
		new, old *Answer
		want     bool
	}{
		{"a later good", good(later, time.Hour), good(made, time.Hour), true},
		{"an earlier good", good(earlier, 2*time.Hour), good(made, time.Hour), false},
		{"an earlier good that counts", good(earlier, time.Hour), good(made, -1), true},
		{"a later good that does not", good(later, -1), good(made, time.Hour), false},
		{"a later good for a revocation", good(later, time.Hour), revoked(made, hold, time.Hour), true},
		{"a good as late", good(made, time.Hour), revoked(made, hold, -1), false},
		{"an earlier good for a revocation that ran out", good(earlier, time.Hour), revoked(made, hold, -1), false},
		{"a later good that does not count, for a revocation", good(later, -1), revoked(made, hold, -1), false},
		{"a later hold", revoked(later, hold, -1), good(made, time.Hour), true},
		{"a later hold for another", revoked(later, hold, -1), revoked(made, hold, time.Hour), true},
		{"a hold as late", revoked(made, hold, time.Hour), good(made, time.Hour), true},
		{"an earlier hold", revoked(earlier, hold, time.Hour), good(made, time.Hour), false},
		{"a revocation from before", revoked(earlier, ocsp.KeyCompromise, -1), good(made, time.Hour), true},
		{"a later hold for a revocation for good", revoked(later, hold, time.Hour), revoked(made, ocsp.KeyCompromise, -1), false},
		{"a revocation for a later hold", revoked(earlier, ocsp.KeyCompromise, -1), revoked(made, hold, time.Hour), true},
	} {
		t.Run(tc.name, func(t *testing.T) { assert.Equal(t, tc.want, tc.new.replaces(tc.old, now)) })
	}
}

// only serves one answer of a kind, and nothing else.
func only(kind string, body []byte) func(string, http.ResponseWriter, *http.Request) bool {
	return func(k string, w http.ResponseWriter, _ *http.Request) bool {
		if k != kind {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		w.Write(body)
		return true
	}
}

// TestHoldOutlivesItsEnd has a CRL say on hold, and run out: what was said before it does not count again.
func TestHoldOutlivesItsEnd(t *testing.T) {
	for name, ask := range map[string]func(t *testing.T, w *world, response, list []byte) Answer{
		"stapled": func(t *testing.T, w *world, response, _ []byte) Answer {
			a, err := w.checker().Local(w.leaf, w.issuer, response)
			assert.ErrorContains(t, err, "is older than one that says revoked")
			return a
		},
		"remembered": func(t *testing.T, w *world, response, _ []byte) Answer {
			w.checker().Local(w.leaf, w.issuer, response)
			a, _ := w.checker().Local(w.leaf, w.issuer, nil)
			return a
		},
		"by OCSP": func(t *testing.T, w *world, response, _ []byte) Answer {
			w.s.Instead = only("ocsp", response)
			return w.checker().Ask(t.Context(), w.leaf, w.issuer)
		},
		"by CRL": func(t *testing.T, w *world, _, list []byte) Answer {
			w.s.Instead = only("crl", list)
			w.checker().Ask(t.Context(), w.leaf, w.issuer)
			return w.checker().Ask(t.Context(), w.leaf, w.issuer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, byBoth)
				w.s.Lifetime = 7 * 24 * time.Hour
				response, list := w.s.Staple(w.leaf), w.s.List()
				time.Sleep(time.Hour)
				w.s.Revoke(w.leaf, ocsp.CertificateHold)
				w.s.Lifetime = time.Hour
				w.s.Instead = instead("ocsp", http.StatusNotFound)
				require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
				time.Sleep(time.Hour + 2*time.Second)
				assert.Equal(t, Unavailable, ask(t, w, response, list).Status)

				time.Sleep(time.Minute)
				w.s = w.ca.Serve(t)
				a, err := w.checker().Local(w.leaf, w.issuer, w.s.Staple(w.leaf))
				require.NoError(t, err)
				assert.Equal(t, Good, a.Status, "a later one says that it is over")
			})
		})
	}
}

// TestHoldIsLifted has a later answer than the one that says on hold, which still counts.
func TestHoldIsLifted(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 7 * 24 * time.Hour
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		hold := w.s.Staple(w.leaf)
		w.s.Instead = instead("ocsp", http.StatusNotFound)
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Hour)
		lifted := newStaple(t, w)
		a, err := w.checker().Local(w.leaf, w.issuer, lifted)
		require.NoError(t, err)
		assert.Equal(t, Good, a.Status)
		a, _ = w.checker().Local(w.leaf, w.issuer, hold)
		assert.Equal(t, Good, a.Status, "an older staple does not bring it back")
		assert.Equal(t, FromCache, a.Source)
	})
}

// TestRevokedByGETOnly has a proxy keep that the certificate is revoked, while the responder behind it has yet to hear of it.
func TestRevokedByGETOnly(t *testing.T) {
	for name, ends := range map[string]time.Duration{"which still counts": 24 * time.Hour, "which ran out": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, byOCSP)
			w.s.Revoke(w.leaf, ocsp.KeyCompromise)
			method := ""
			w.s.Instead = func(_ string, _ http.ResponseWriter, r *http.Request) bool { method = r.Method; return false }
			w.s.OCSP = func(r *testpki.Response) {
				s := &r.Singles[0]
				if method == http.MethodGet {
					s.ThisUpdate, s.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
				} else {
					s.Status, s.ThisUpdate, s.NextUpdate = ocsp.Good, time.Now().Add(-24*time.Hour), time.Now().Add(ends)
				}
			}
			a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
			assert.Equal(t, Revoked, a.Status, "%v", a.Err)
			a, _ = w.checker().Local(w.leaf, w.issuer, nil)
			assert.Equal(t, Revoked, a.Status)
		})
	}
}

// TestWhatDoesNotCountIsNoObstacle has services whose later answers do not count: those that do are kept all the same.
func TestWhatDoesNotCountIsNoObstacle(t *testing.T) {
	// asks does so five times, as handshakes do, and says how many requests that made.
	asks := func(t *testing.T, w *world) int {
		before := w.s.Requests()
		for range 5 {
			a, _ := w.checker().Local(w.leaf, w.issuer, nil)
			if a.Status == Unavailable {
				a = w.checker().Ask(t.Context(), w.leaf, w.issuer)
			}
			require.Equal(t, Good, a.Status, "%v", a.Err)
		}
		return w.s.Requests() - before
	}
	for name, names := range map[string]func(*testpki.Services) []testpki.Option{"OCSP": byOCSP, "CRL": byCRL} {
		t.Run(name+" from the future", func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				from, to := time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
				w.s.OCSP = func(r *testpki.Response) { r.Singles[0].ThisUpdate, r.Singles[0].NextUpdate = from, to }
				w.s.CRL = func(l *testpki.List) { l.ThisUpdate, l.NextUpdate = from, to }
				require.Equal(t, Unavailable, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
				made := w.s.Requests()
				assert.ErrorContains(t, w.checker().Ask(t.Context(), w.leaf, w.issuer).Err, "not asked again so soon")
				assert.Equal(t, made, w.s.Requests(), "it is a failure")
				w.s.OCSP, w.s.CRL = nil, nil
				time.Sleep(failureMemory + time.Second)
				assert.Equal(t, 1, asks(t, w))
			})
		})
	}
	t.Run("on hold from the future", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			w := newWorld(t, byOCSP)
			from := time.Now().Add(24 * time.Hour)
			w.s.OCSP = func(r *testpki.Response) {
				s := &r.Singles[0]
				s.Status, s.Reason, s.RevokedAt = ocsp.Revoked, ocsp.CertificateHold, from
				s.ThisUpdate, s.NextUpdate = from, from.Add(time.Hour)
			}
			require.Equal(t, Unavailable, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
			w.s.OCSP = nil
			time.Sleep(failureMemory + time.Second)
			assert.Equal(t, 1, asks(t, w))
		})
	})
	t.Run("later, but it ran out", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			w := newWorld(t, byOCSP)
			w.s.Lifetime = 24 * time.Hour
			longer := w.s.Staple(w.leaf)
			time.Sleep(time.Minute)
			w.s.Lifetime = 10 * time.Minute
			require.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
			time.Sleep(11 * time.Minute)
			w.s.Instead = only("ocsp", longer)
			assert.Equal(t, 1, asks(t, w))
		})
	})
}

// TestPastMoments asks for a moment of which nobody knows any more: what is known of now is not asked for again.
func TestPastMoments(t *testing.T) {
	for name, names := range map[string]func(*testpki.Services) []testpki.Option{"OCSP": byOCSP, "CRL": byCRL} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, names)
			for range 5 {
				c := w.checker()
				c.Now = time.Now().Add(-24 * time.Hour)
				a := c.Ask(t.Context(), w.leaf, w.issuer)
				assert.Equal(t, Unavailable, a.Status)
				assert.ErrorContains(t, a.Err, "is not valid before")
			}
			assert.LessOrEqual(t, w.s.Requests(), 2, "GET and POST")
		})
	}
}

// TestPastMomentsDoNotSpeakForNow has one ask for a moment before the certificate was on hold, and another join for now.
func TestPastMomentsDoNotSpeakForNow(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Lifetime = 48 * time.Hour
		old := w.s.Staple(w.leaf)
		time.Sleep(24 * time.Hour)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		w.s.Lifetime = time.Minute
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Hour)
		w.s.Instead = func(kind string, rw http.ResponseWriter, r *http.Request) bool {
			time.Sleep(time.Second)
			return only("ocsp", old)(kind, rw, r)
		}
		past := w.checker()
		past.Now = time.Now().Add(-20 * time.Hour)
		var both sync.WaitGroup
		both.Go(func() { assert.Equal(t, Good, past.Ask(t.Context(), w.leaf, w.issuer).Status) })
		time.Sleep(time.Millisecond)
		both.Go(func() {
			a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
			assert.Equal(t, Unavailable, a.Status)
			assert.ErrorContains(t, a.Err, "is older than one that says revoked")
		})
		both.Wait()
	})
}

// TestListsOfOneMoment has two lists with the same thisUpdate, of which one lacks a revocation.
func TestListsOfOneMoment(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byCRL)
		made := time.Now()
		w.s.CRL = func(l *testpki.List) { l.ThisUpdate, l.NextUpdate = made, made.Add(time.Hour) }
		without := w.s.List()
		w.s.Revoke(w.leaf, ocsp.KeyCompromise)
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Hour + time.Second)
		w.s.Instead = only("crl", without)
		assert.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		a, _ := w.checker().Local(w.leaf, w.issuer, nil)
		assert.Equal(t, Revoked, a.Status)
	})
}

// TestClientTimeout has a client that is less patient than those who ask.
func TestClientTimeout(t *testing.T) {
	for name, names := range map[string]func(*testpki.Services) []testpki.Option{"ocsp": byOCSP, "crl": byCRL} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, names)
				w.client.Timeout = 2 * time.Second
				w.s.Instead = hang(name)
				for range 3 {
					require.Equal(t, Unavailable, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
				}
				assert.Equal(t, 1, w.s.Requests(), "its timeout is a failure")
			})
		})
	}
}

// TestDelegates has delegates that are easily taken for others.
func TestDelegates(t *testing.T) {
	certify := func(t *testing.T, w *world, template x509.Certificate, key any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, &template, w.ca.Certificate, key, w.ca.Key)
		require.NoError(t, err)
		c, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return c
	}
	t.Run("one that was renewed, both certificates in the response", func(t *testing.T) {
		w := newWorld(t, byOCSP)
		delegate := signing(t, w.ca)
		expired := *delegate.Certificate
		expired.NotBefore, expired.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		older := certify(t, w, expired, delegate.Key.Public())
		w.s.OCSP = func(r *testpki.Response) {
			by(delegate)(r)
			r.Certificates = []*x509.Certificate{older, delegate.Certificate}
		}
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
	})
	t.Run("one that has the CA's own key", func(t *testing.T) {
		w := newWorld(t, byOCSP)
		c := certify(t, w, *signing(t, w.ca).Certificate, w.ca.Key.Public())
		w.s.OCSP = func(r *testpki.Response) {
			r.Responder, r.ByName, r.Certificates = c, true, []*x509.Certificate{c}
		}
		assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
	})
}

// TestRenewalByPOST has a proxy keep a response beyond its end, while the one that is stapled still counts.
func TestRenewalByPOST(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Lifetime = time.Hour
		r0 := w.s.Staple(w.leaf)
		time.Sleep(time.Hour + time.Minute)
		w.s.Instead = stale(r0, 0)
		a, _, err := w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
		require.NoError(t, err)
		require.Equal(t, Good, a.Status)
		time.Sleep(30 * time.Minute) // renewal, the first still counts
		_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
		assert.NoError(t, err, "renewal by POST")
	})
}

// TestStapleOlderThanKnown has a responder say good that is behind another one: it may be stapled all the same.
func TestStapleOlderThanKnown(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Lifetime = 24 * time.Hour
		older := w.s.Staple(w.leaf)
		time.Sleep(time.Hour)
		_, err := w.checker().Local(w.leaf, w.issuer, w.s.Staple(w.leaf))
		require.NoError(t, err)
		w.s.Instead = only("ocsp", older)
		_, _, err = w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
		assert.NoError(t, err)
	})
}

// TestSupersededIsAFailure has a responder go on with what it said before the certificate was on hold.
func TestSupersededIsAFailure(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Lifetime = 7 * 24 * time.Hour
		old := w.s.Staple(w.leaf)
		time.Sleep(time.Hour)
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		w.s.Lifetime = time.Hour
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(2 * time.Hour)
		w.s.Instead = only("ocsp", old)
		before := w.s.Requests()
		for range 10 {
			require.Equal(t, Unavailable, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		}
		assert.LessOrEqual(t, w.s.Requests()-before, 2)
	})
}

// TestEarlierListIsKept has a mirror that is behind, whose list still counts where the later one has run out.
func TestEarlierListIsKept(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byCRL)
		w.s.Lifetime = 7 * 24 * time.Hour
		old := w.s.List()
		time.Sleep(time.Hour)
		w.s.Lifetime = time.Hour
		require.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(2 * time.Hour)
		w.s.Instead = only("crl", old)
		before := w.s.Requests()
		for range 10 {
			a, _ := w.checker().Local(w.leaf, w.issuer, nil)
			if a.Status == Unavailable {
				a = w.checker().Ask(t.Context(), w.leaf, w.issuer)
			}
			assert.Equal(t, Good, a.Status)
		}
		assert.Equal(t, 1, w.s.Requests()-before)
	})
}

// TestListsThatAreBarredAreFetchedAgain has a hold that ran out bar the list in memory, and a new list say that it is over.
func TestListsThatAreBarredAreFetchedAgain(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 7 * 24 * time.Hour
		w.s.Instead = instead("ocsp", http.StatusNotFound)
		require.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Hour)
		w.s.Instead = nil
		w.s.Revoke(w.leaf, ocsp.CertificateHold)
		w.s.Lifetime = time.Hour
		a, _ := w.checker().Local(w.leaf, w.issuer, w.s.Staple(w.leaf))
		require.Equal(t, Revoked, a.Status)
		time.Sleep(2 * time.Hour)
		fresh := w.ca.Serve(t).List() // lifted: a CRL of now says good
		w.s.Instead = only("crl", fresh)
		for range 3 {
			time.Sleep(time.Minute)
			a = w.checker().Ask(t.Context(), w.leaf, w.issuer)
		}
		assert.Equal(t, Good, a.Status)
	})
}

// TestPastMomentsHarmNobody has a proxy with a response that counts only for the moment that is asked about first.
func TestPastMomentsHarmNobody(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.Lifetime = time.Hour
		r0 := w.s.Staple(w.leaf)
		time.Sleep(2 * time.Hour)
		w.s.Instead = stale(r0, 0)
		c := w.checker()
		c.Now = time.Now().Add(-90 * time.Minute)
		require.Equal(t, Good, c.Ask(t.Context(), w.leaf, w.issuer).Status)
		a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
		assert.Equal(t, Good, a.Status, "%v", a.Err)
	})
}

// TestPastMomentsOfOCSP has a list in memory that counts now, while the responder has an answer for then.
func TestPastMomentsOfOCSP(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 7 * 24 * time.Hour
		old := w.s.Staple(w.leaf)
		time.Sleep(24 * time.Hour)
		w.s.Instead = instead("ocsp", http.StatusNotFound)
		require.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(11 * time.Second)
		w.s.Instead = only("ocsp", old)
		c := w.checker()
		c.Now = time.Now().Add(-12 * time.Hour)
		a := c.Ask(t.Context(), w.leaf, w.issuer)
		assert.Equal(t, Good, a.Status, "%v", a.Err)
	})
}

// TestHoldsDoNotLiftEachOther has a past moment judged by a staple that says on hold and has run out since: what says revoked now is
// not forgotten.
func TestHoldsDoNotLiftEachOther(t *testing.T) {
	for name, reason := range map[string]int{"hold": ocsp.CertificateHold, "for good": ocsp.KeyCompromise} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				w := newWorld(t, byOCSP)
				w.s.Lifetime = 7 * 24 * time.Hour
				w.s.Revoke(w.leaf, reason)
				require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
				time.Sleep(time.Hour)
				w.s.Lifetime = time.Hour
				w.s.Revoke(w.leaf, ocsp.CertificateHold)
				short := w.s.Staple(w.leaf)
				time.Sleep(2 * time.Hour)
				a, _ := w.checker().Local(w.leaf, w.issuer, nil)
				require.Equal(t, Revoked, a.Status)
				past := w.checker()
				past.Now = time.Now().Add(-90 * time.Minute)
				past.Local(w.leaf, w.issuer, short)
				a, _ = w.checker().Local(w.leaf, w.issuer, nil)
				assert.Equal(t, Revoked, a.Status)
			})
		})
	}
}

// TestUnknownBesidesOthers has a responder that does not know the certificate.
func TestUnknownBesidesOthers(t *testing.T) {
	t.Run("while a revocation comes", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			w := newWorld(t, byOCSP)
			w.s.Revoke(w.leaf, ocsp.KeyCompromise)
			revoked := w.s.Staple(w.leaf)
			w.s.OCSP = func(r *testpki.Response) { r.Singles[0].Status = ocsp.Unknown }
			w.s.Instead = func(string, http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
			asked := make(chan Answer, 1)
			go func() { asked <- w.checker().Ask(t.Context(), w.leaf, w.issuer) }()
			time.Sleep(time.Millisecond)
			w.checker().Local(w.leaf, w.issuer, revoked)
			a := <-asked
			assert.Equal(t, Revoked, a.Status)
			assert.Equal(t, FromCache, a.Source)
		})
	})
	t.Run("in a response that ran out", func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.s.OCSP = func(r *testpki.Response) {
			s := &r.Singles[0]
			s.Status, s.ThisUpdate, s.NextUpdate = ocsp.Unknown, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}
		for range 2 {
			a := w.checker().Ask(t.Context(), w.leaf, w.issuer)
			assert.Equal(t, Unavailable, a.Status)
			assert.ErrorContains(t, a.Err, "ran out on")
		}
		assert.Equal(t, 2, w.s.Requests(), "GET and POST, once")
	})
}

// stale is a proxy that answers every GET with one response; what is posted takes its time.
func stale(response []byte, slow time.Duration) func(string, http.ResponseWriter, *http.Request) bool {
	return func(kind string, rw http.ResponseWriter, r *http.Request) bool {
		if kind == "ocsp" && r.Method == http.MethodGet {
			rw.Write(response)
			return true
		}
		select {
		case <-time.After(slow):
			return false
		case <-r.Context().Done():
			return true
		}
	}
}

// TestOwnLimitsSpeakForNobody has one asker come to the end of its budget, or of its time, between the GET and the POST.
func TestOwnLimitsSpeakForNobody(t *testing.T) {
	ranOut := func(t *testing.T, slow time.Duration) *world {
		w := newWorld(t, byOCSP)
		response := w.s.Staple(w.leaf)
		time.Sleep(2 * time.Hour)
		w.s.Instead = stale(response, slow)
		return w
	}
	t.Run("budget", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			w := ranOut(t, 0)
			poor := w.checker()
			for range fetch.MaxRequests - 1 {
				_, err := fetch.Do(t.Context(), w.client, poor.Budget, fetch.Request{URL: w.s.CRLURL(), MaxBytes: maxCRL})
				require.NoError(t, err)
			}
			assert.ErrorIs(t, poor.Ask(t.Context(), w.leaf, w.issuer).Err, fetch.ErrBudget)
			assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		})
	})
	t.Run("time", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			w := ranOut(t, time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			hasty := make(chan Answer, 1)
			go func() { hasty <- w.checker().Ask(ctx, w.leaf, w.issuer) }()
			time.Sleep(time.Millisecond)
			assert.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status, "who joined")
			assert.ErrorIs(t, (<-hasty).Err, context.DeadlineExceeded)
		})
	})
}

// TestRevokedSince has a list renewed: a revocation in it counts from the date that it gives, also for moments before the list.
func TestRevokedSince(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 7 * 24 * time.Hour
		good := w.s.Staple(w.leaf)
		time.Sleep(time.Hour)
		w.s.Revoke(w.leaf, ocsp.KeyCompromise)
		w.s.Lifetime = time.Hour
		w.s.Instead = instead("ocsp", http.StatusNotFound)
		require.Equal(t, Revoked, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(2 * time.Hour)
		past := w.checker()
		past.Now = time.Now().Add(-30 * time.Minute)
		other := w.ca.Issue(t, "other.example", byCRL(w.s)...).Leaf
		for range 2 {
			a, _ := past.Local(w.leaf, w.issuer, good)
			assert.Equal(t, Revoked, a.Status)
			require.Equal(t, Good, w.checker().Ask(t.Context(), other, w.issuer).Status, "which has the list renewed")
		}
	})
}

// TestPastMomentsBesideALaterList asks for a moment of which nobody knows, while a list has later news than the responder.
func TestPastMomentsBesideALaterList(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byBoth)
		w.s.Lifetime = 7 * 24 * time.Hour
		response := w.s.Staple(w.leaf)
		w.s.Instead = func(kind string, rw http.ResponseWriter, _ *http.Request) bool {
			if kind == "ocsp" {
				rw.Write(response)
			}
			return kind == "ocsp"
		}
		require.Equal(t, Good, w.checker().Ask(t.Context(), w.leaf, w.issuer).Status)
		time.Sleep(time.Hour)
		other := w.ca.Issue(t, "other.example", byCRL(w.s)...).Leaf
		require.Equal(t, Good, w.checker().Ask(t.Context(), other, w.issuer).Status)
		before := w.s.Requests()
		for range 5 {
			past := w.checker()
			past.Now = time.Now().Add(-24 * time.Hour)
			assert.Equal(t, Unavailable, past.Ask(t.Context(), w.leaf, w.issuer).Status)
		}
		assert.LessOrEqual(t, w.s.Requests()-before, 2)
	})
}

// TestStapleBesideALiftedHold has the responder that is asked first lag behind what is known.
func TestStapleBesideALiftedHold(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		w := newWorld(t, byOCSP)
		w.leaf.OCSPServer = []string{w.s.OCSPURL() + "/lags", w.s.OCSPURL()}
		lagging := w.s
		lagging.Lifetime = 7 * 24 * time.Hour
		lagging.Revoke(w.leaf, ocsp.CertificateHold)
		hold := lagging.Staple(w.leaf)
		time.Sleep(time.Hour)
		_, err := w.checker().Local(w.leaf, w.issuer, newStaple(t, w))
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		good := w.s.Staple(w.leaf)
		lagging.Instead = func(_ string, rw http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "lags") {
				rw.Write(hold)
			} else {
				rw.Write(good)
			}
			return true
		}
		_, at, err := w.checker().Staple(t.Context(), w.leaf, w.issuer, 0)
		require.NoError(t, err)
		assert.Equal(t, 1, at)
	})
}
