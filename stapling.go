package sslstream

import (
	"context"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/sslstream/sslstream/internal/revocation"
)

// This file answers what a server staples to its certificate (RFC 6066, Section 8).

// After a failure to get a response the next handshake that comes this much later, or twice as much after each failure more, has
// it tried again.
const (
	stapleRetry    = 5 * time.Second
	maxStapleRetry = 5 * time.Minute
)

// stapler keeps an OCSP response for a certificate. What it has is fetched on a goroutine that a handshake starts, that nobody waits
// for, and that ends within defaultURLRetrievalTimeout. Nil staples nothing. It is safe for concurrent use.
type stapler struct {
	cert, issuer *x509.Certificate
	client       *http.Client
	offline      bool

	mu        sync.Mutex
	response  *revocation.Answer // good; nil: none yet
	due       time.Time          // for another one
	fetching  bool
	failures  int // in a row
	responder int // that answered last
}

// newStapler makes one that begins with a response that is there already, if that counts.
func newStapler(cert, issuer *x509.Certificate, response []byte, client *http.Client, offline bool) *stapler {
	if issuer == nil {
		return nil // nobody can tell what is a response
	}
	s := &stapler{cert: cert, issuer: issuer, client: client, offline: offline || len(cert.OCSPServer) == 0}
	known, _ := s.checker().Local(cert, issuer, response)
	if known.Status == revocation.Good && known.Source == revocation.FromStaple {
		s.accept(&known)
	}
	if s.offline && s.response == nil {
		return nil
	}
	return s
}

func (s *stapler) checker() *revocation.Checker {
	return &revocation.Checker{Cache: revocationCache, Client: s.client, Now: time.Now()}
}

// accept takes a response, and has another one fetched half way to where it ends.
func (s *stapler) accept(response *revocation.Answer) {
	now := wallClock()
	if s.response == nil || !response.Made.Before(s.response.Made) || now.After(s.response.Until) {
		s.response = response
	}
	s.due = now.Add(max(s.response.Until.Sub(now)/2, stapleRetry))
}

// wallClock is the time without the clock that stands still while the machine sleeps: responses run out all the same.
func wallClock() time.Time { return time.Now().Round(0) }

// staple is what to staple now, nil for nothing. It has it fetched or renewed where that is due.
func (s *stapler) staple() []byte {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := wallClock()
	if !s.offline && !s.fetching && !now.Before(s.due) {
		s.fetching = true
		go s.fetch(s.responder)
	}
	if s.response == nil || now.After(s.response.Until) {
		return nil
	}
	return s.response.Raw
}

func (s *stapler) fetch(first int) {
	ctx, cancel := context.WithTimeout(context.Background(), defaultURLRetrievalTimeout)
	defer cancel()
	response, responder, err := s.checker().Staple(ctx, s.cert, s.issuer, first)
	known, _ := s.checker().Local(s.cert, s.issuer, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching = false
	if err != nil {
		if known.Status == revocation.Revoked {
			s.response = nil // it still counts, but is known to be no longer true
		}
		s.due = wallClock().Add(min(stapleRetry<<s.failures, maxStapleRetry))
		s.failures = min(s.failures+1, 10)
		return
	}
	s.failures, s.responder = 0, responder
	s.accept(response)
}
