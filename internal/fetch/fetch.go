// Package fetch downloads what certificates point to: bounded in size, time, redirects and number, over http and https
// only. Those who want the same at once share one download, and what is kept of it is bounded as well. It knows nothing
// of what it carries.
package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// The bounds.
const (
	MaxRedirects = 5
	MaxRequests  = 16       // of one Budget
	MaxBody      = 64 << 20 // whatever a Request says
)

// ErrBudget is for a request too many.
var ErrBudget = fmt.Errorf("more than %d requests would be needed", MaxRequests)

// StatusError is for an answer that is not 200 OK.
type StatusError struct{ Status string }

func (e *StatusError) Error() string { return "the server answers " + e.Status }

// Budget counts the requests made for one purpose. The zero value allows MaxRequests. It is safe for concurrent use.
type Budget struct{ spent atomic.Int32 }

// take is false once the budget is spent.
func (b *Budget) take() bool { return b.spent.Add(1) <= MaxRequests }

// Request is one download.
type Request struct {
	URL         string
	Body        []byte // posted; nil: a GET
	ContentType string // of Body
	Accept      string
	MaxBytes    int64 // of the answer; at most MaxBody
}

// private is the client for those who give none. It keeps no connection: nobody would close them.
var private = &http.Client{Transport: &http.Transport{
	Proxy:                  http.ProxyFromEnvironment,
	DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	TLSHandshakeTimeout:    10 * time.Second,
	DisableKeepAlives:      true,
	DisableCompression:     true, // signatures and certificates do not compress, bombs do
	MaxResponseHeaderBytes: 64 << 10,
}}

// Allowed says whether a URL may be asked at all: absolute, and http or https.
func Allowed(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	return allowed(u)
}

func allowed(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is no http or https address", u.Redacted())
	}
	return nil
}

// Do makes the request and returns the body of the answer. A nil client is a private one with the environment's proxies; a
// nil budget allows any number.
func Do(ctx context.Context, client *http.Client, budget *Budget, r Request) ([]byte, error) {
	if err := Allowed(r.URL); err != nil {
		return nil, err
	}
	if budget != nil && !budget.take() {
		return nil, ErrBudget
	}
	method, body := http.MethodGet, io.Reader(nil)
	if r.Body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.Body)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.URL, body)
	if err != nil {
		return nil, err
	}
	if r.ContentType != "" {
		request.Header.Set("Content-Type", r.ContentType)
	}
	if r.Accept != "" {
		request.Header.Set("Accept", r.Accept)
	}
	response, err := guarded(client).Do(request)
	if err != nil {
		var about *url.Error // whose text has the URL, which may be long; who asks knows it
		if errors.As(err, &about) && ctx.Err() == nil {
			err = about.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, &StatusError{response.Status}
	}
	most := min(r.MaxBytes, MaxBody)
	tooBig := fmt.Errorf("the answer is larger than %d bytes", most)
	if response.ContentLength > most {
		return nil, tooBig
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(answer)) > most {
		return nil, tooBig
	}
	return answer, nil
}

// guarded is the client with a bound on where it lets itself be sent.
func guarded(client *http.Client) *http.Client {
	if client == nil {
		client = private
	}
	own := *client
	own.CheckRedirect = func(request *http.Request, via []*http.Request) error {
		if len(via) > MaxRedirects {
			return fmt.Errorf("more than %d redirects", MaxRedirects)
		}
		if err := allowed(request.URL); err != nil {
			return fmt.Errorf("redirected: %w", err)
		}
		if client.CheckRedirect != nil {
			return client.CheckRedirect(request, via)
		}
		return nil
	}
	return &own
}
