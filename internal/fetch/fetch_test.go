package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// transport answers without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body io.Reader, length int64) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(body), ContentLength: length}
}

// TestFetch shows what is fetched and what is not.
func TestFetch(t *testing.T) {
	const most = 1000
	elsewhere := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Accept")+" "+string(body))
	})
	mux.HandleFunc("/exact", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, most)) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, most+1)) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, most)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write(make([]byte, 10))
	})
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/no-content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/moved", elsewhere("/good"))
	mux.HandleFunc("/loop", elsewhere("/loop"))
	mux.HandleFunc("/file", elsewhere("file:///etc/passwd"))
	mux.HandleFunc("/ftp", elsewhere("ftp://127.0.0.1/"))
	mux.HandleFunc("/hops/", func(w http.ResponseWriter, r *http.Request) { // as many as there are x
		if rest, ok := strings.CutSuffix(r.URL.Path, "x"); ok {
			http.Redirect(w, r, rest, http.StatusTemporaryRedirect)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, tc := range []struct {
		url  string
		body string
		says string // the error
	}{
		{"/good", "GET  type/accepted ", ""},
		{"/moved", "GET  type/accepted ", ""},
		{"/exact", string(make([]byte, most)), ""},
		{"/hops/xxxxx", "", ""},
		{"/hops/xxxxxx", "", "more than 5 redirects"},
		{"/loop", "", "more than 5 redirects"},
		{"/file", "", "no http or https address"},
		{"/ftp", "", "no http or https address"},
		{"/large", "", "larger than 1000 bytes"},
		{"/endless", "", "larger than 1000 bytes"},
		{"/short", "", "unexpected EOF"},
		{"/missing", "", "404"},
		{"/no-content", "", "204"},
		{"file:///etc/passwd", "", "no http or https address"},
		{"ldap://127.0.0.1/", "", "no http or https address"},
		{"/relative", "", "no http or https address"},
		{"http:///nowhere", "", "no http or https address"},
		{"http://[", "", "missing ']'"},
		{"", "", "no http or https address"},
	} {
		t.Run(tc.url, func(t *testing.T) {
			url := tc.url
			if strings.HasPrefix(url, "/") && url != "/relative" {
				url = server.URL + url
			}
			got, err := Do(t.Context(), nil, nil, Request{URL: url, Accept: "type/accepted", MaxBytes: most})
			if tc.says != "" {
				require.ErrorContains(t, err, tc.says)
				assert.Nil(t, got)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.body, string(got))
		})
	}
	got, err := Do(t.Context(), server.Client(), nil, Request{URL: server.URL + "/good", Body: []byte("question"), ContentType: "type/question", MaxBytes: most})
	require.NoError(t, err)
	assert.Equal(t, "POST type/question  question", string(got))
	var status *StatusError
	_, err = Do(t.Context(), nil, nil, Request{URL: server.URL + "/missing", MaxBytes: most})
	assert.ErrorAs(t, err, &status)
}

// TestClientIsAsked honours what the user's client says of redirects, and does not change it.
func TestClientIsAsked(t *testing.T) {
	refuse := errors.New("no redirects here")
	client := &http.Client{
		Transport: transport(func(r *http.Request) (*http.Response, error) {
			a := answer(http.StatusFound, strings.NewReader(""), 0)
			a.Header.Set("Location", "http://b.example/")
			return a, nil
		}),
		CheckRedirect: func(*http.Request, []*http.Request) error { return refuse },
	}
	_, err := Do(t.Context(), client, nil, Request{URL: "http://a.example/", MaxBytes: 1})
	assert.ErrorIs(t, err, refuse)
	assert.NotContains(t, err.Error(), "a.example", "who asks knows where")
}

// TestDeclaredSize refuses what says that it is too large without reading it.
func TestDeclaredSize(t *testing.T) {
	read := false
	client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		return answer(http.StatusOK, readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF }), MaxBody+1), nil
	})}
	_, err := Do(t.Context(), client, nil, Request{URL: "http://a.example/", MaxBytes: 1 << 60})
	assert.ErrorContains(t, err, "larger than 67108864 bytes", "whatever who asks allows")
	assert.False(t, read)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBudgetIsSpent(t *testing.T) {
	client := &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		return answer(http.StatusOK, bytes.NewReader(nil), 0), nil
	})}
	var b Budget
	for range MaxRequests {
		_, err := Do(t.Context(), client, &b, Request{URL: "http://a.example/", MaxBytes: 1})
		require.NoError(t, err)
	}
	_, err := Do(t.Context(), client, &b, Request{URL: "http://a.example/", MaxBytes: 1})
	assert.ErrorIs(t, err, ErrBudget)
}

func TestContextEndsFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			return answer(http.StatusOK, readerFunc(func([]byte) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() }), -1), nil
		})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Do(ctx, client, nil, Request{URL: "http://a.example/", MaxBytes: 1})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestFlights shows who shares what, and who ends what.
func TestFlights(t *testing.T) {
	t.Run("one piece of work for all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			var works atomic.Int32
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					got, err := f.Do(t.Context(), "key", func(context.Context) (int, error) { time.Sleep(time.Second); return int(works.Add(1)), nil })
					assert.NoError(t, err)
					assert.Equal(t, 1, got)
				})
			}
			all.Wait()
			got, err := f.Do(t.Context(), "key", func(context.Context) (int, error) { return int(works.Add(1)), nil })
			assert.NoError(t, err)
			assert.Equal(t, 2, got, "what is done is not kept")
			assert.Empty(t, f.flying)
		})
	})
	t.Run("who asked first leaves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			work := func(ctx context.Context) (int, error) {
				select {
				case <-time.After(10 * time.Second):
					return 1, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}
			first, leave := context.WithCancel(t.Context())
			go func() {
				_, err := f.Do(first, "key", work)
				assert.ErrorIs(t, err, context.Canceled)
			}()
			time.Sleep(time.Second)
			time.AfterFunc(time.Second, leave)
			got, err := f.Do(t.Context(), "key", func(context.Context) (int, error) { t.Error("it is joined"); return 0, nil })
			assert.NoError(t, err)
			assert.Equal(t, 1, got)
		})
	})
	t.Run("all leave", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			cancelled := make(chan time.Duration, 1)
			began := time.Now()
			for i := range 3 {
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(3-i)*time.Second)
					defer cancel()
					time.Sleep(time.Duration(i) * time.Millisecond)
					f.Do(ctx, "key", func(ctx context.Context) (int, error) {
						<-ctx.Done()
						cancelled <- time.Since(began)
						return 0, ctx.Err()
					})
				}()
			}
			assert.Equal(t, 3*time.Second, <-cancelled)
			synctest.Wait()
			assert.Empty(t, f.flying)
		})
	})
	t.Run("the first deadline is not the others'", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				f.Do(ctx, "key", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			}()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := f.Do(ctx, "key", func(context.Context) (int, error) { return 2, nil })
			assert.NoError(t, err)
			assert.Equal(t, 2, got)
		})
	})
	t.Run("the first budget is not the others'", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			go f.Do(t.Context(), "key", func(context.Context) (int, error) { time.Sleep(time.Second); return 0, ErrBudget })
			synctest.Wait()
			got, err := f.Do(t.Context(), "key", func(context.Context) (int, error) { return 2, nil })
			assert.NoError(t, err)
			assert.Equal(t, 2, got)
		})
	})
	t.Run("a timeout of the work's own is an answer for all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			var works atomic.Int32
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					_, err := f.Do(t.Context(), "key", func(context.Context) (int, error) {
						works.Add(1)
						time.Sleep(time.Second)
						return 0, context.DeadlineExceeded
					})
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				})
			}
			all.Wait()
			assert.EqualValues(t, 1, works.Load())
		})
	})
	t.Run("work that does not listen keeps nobody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var f Flights[string, int]
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := f.Do(ctx, "key", func(context.Context) (int, error) { time.Sleep(time.Hour); return 0, nil })
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, time.Second, time.Since(began))
			_, err = f.Do(t.Context(), "key", func(context.Context) (int, error) { return 0, nil })
			assert.NoError(t, err, "who comes later does not join what is given up")
			time.Sleep(time.Hour) // the work's
		})
	})
	t.Run("a context that has ended", func(t *testing.T) {
		var f Flights[string, int]
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.Do(ctx, "key", func(context.Context) (int, error) { t.Error("no work"); return 0, nil })
		assert.ErrorIs(t, err, context.Canceled)
	})
}
