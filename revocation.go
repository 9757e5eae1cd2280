package sslstream

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/sslstream/sslstream/internal/fetch"
	"github.com/sslstream/sslstream/internal/revocation"
)

// This file answers which certificates of a chain are asked about, and what the answers make of it.

// revocationCache is the process's: what one validation finds out serves all others.
var revocationCache = revocation.NewCache(128 << 20)

// defaultURLRetrievalTimeout is for all downloads of one validation together.
const defaultURLRetrievalTimeout = 15 * time.Second

// validation is one judgement on one peer: what came with its certificates, and what it may still download.
type validation struct {
	ctx     context.Context
	timeout time.Duration // for all downloads, from the first on
	during  context.Context
	cancel  context.CancelFunc
	budget  fetch.Budget
	trace   *Trace

	resumed     bool      // chains that were valid before need no second look
	ofServer    bool      // the peer is a server in a handshake, which can staple
	staple      []byte    // an OCSP response, from the peer
	stapleUntil time.Time // it says good until then; zero: there is none that does
	goodUntil   time.Time // the first end of what says good and cannot be asked for again; zero: none
}

// validation begins one. end must follow.
func (p *policy) validation(ctx context.Context) *validation {
	return &validation{ctx: ctx, timeout: p.retrievalTimeout, trace: traceOf(ctx)}
}

// downloading is the context for downloads. The first call begins their time.
func (v *validation) downloading() context.Context {
	if v.during == nil {
		v.during, v.cancel = context.WithTimeout(v.ctx, v.timeout)
	}
	return v.during
}

func (v *validation) end() {
	if v.cancel != nil {
		v.cancel()
	}
}

// checkAll asks about the chains that are valid otherwise until one of them stays so, and returns that one, or else
// the one with the least against it.
func (v *validation) checkAll(p *policy, verified [][]*x509.Certificate, now time.Time) (*Chain, [][]*x509.Certificate) {
	var best *Chain
	for _, certs := range verified[:min(len(verified), maxChainPaths)] {
		chain := chainOf(certs)
		v.check(p, chain, endTrusted, now)
		if len(chain.Status) == 0 {
			return chain, [][]*x509.Certificate{certs}
		}
		if best == nil || len(chain.Status) < len(best.Status) {
			best = chain
		}
	}
	return best, nil
}

// check adds to a chain what is to be found out about the revocation of its certificates. Nobody is asked on behalf of a chain
// that does not lead to a trusted root by good signatures: whoever connects can send such a one.
func (v *validation) check(p *policy, chain *Chain, end pathEnd, now time.Time) {
	last := len(chain.Elements) - 1
	var about []int
	for i := range chain.Elements {
		root := i == last && (end == endTrusted || end == endSelfSigned && i > 0)
		switch p.revocationFlag {
		case RevocationExcludeRoot:
			if root {
				continue
			}
		case RevocationEndCertificateOnly:
			if i > 0 {
				continue
			}
		}
		about = append(about, i)
	}
	if err := notAsked(chain, end); err != nil {
		for _, i := range about {
			chain.Elements[i].add(StatusRevocationUnknown, err.Error(), err)
		}
	} else {
		answers := v.answers(p, chain, about, now)
		for at, i := range about {
			chain.Elements[i].addAnswer(answers[at])
		}
		if slices.Contains(about, 0) {
			v.requireStaple(&chain.Elements[0])
		}
	}
	p.unite(chain, last)
}

var (
	errUntrustedNotAsked = errors.New("sslstream: revocation is not asked about where the chain does not end in a trusted root")
	errUnsignedNotAsked  = errors.New("sslstream: revocation is not asked about where a signature in the chain does not hold")
	errNoCANotAsked      = errors.New("sslstream: revocation is not asked about where a certificate in the chain is issued by no CA")
)

// notAsked is why nobody is asked about a chain's certificates; nil where they are.
func notAsked(chain *Chain, end pathEnd) error {
	switch {
	case end != endTrusted:
		return errUntrustedNotAsked
	case chain.listed(StatusNotSignatureValid | StatusHasWeakSignature):
		return errUnsignedNotAsked
	case chain.Has(StatusInvalidBasicConstraints):
		return errNoCANotAsked
	}
	return nil
}

// listed says whether any element has one of the statuses, ignored or not.
func (c *Chain) listed(f ChainStatusFlags) bool {
	return slices.ContainsFunc(c.Elements, func(e ChainElement) bool { return e.has(f) })
}

func (e *ChainElement) has(f ChainStatusFlags) bool {
	return slices.ContainsFunc(e.Status, func(s ChainStatus) bool { return s.Flag&f != 0 })
}

func (e *ChainElement) add(flag ChainStatusFlags, detail string, err error) {
	e.Status = append(e.Status, ChainStatus{Flag: flag, Detail: oneLine(detail), Err: err})
}

// maxDetail is how long the detail of one status may become, in bytes.
const maxDetail = 1000

// oneLine is text for people's eyes and logs: joined errors are on lines of their own, and the peer chooses what its
// certificates say, and at which length.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ReplaceAll(shortened(text, maxDetail), "\n", "; "))
}

// shortened is text of about so many bytes at the most.
func shortened(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// addAnswer adds what an answer means for the certificate.
func (e *ChainElement) addAnswer(a revocation.Answer) {
	if a.Status == revocation.Good {
		return
	}
	err := &revocationError{e.Certificate, a.Err}
	switch a.Status {
	case revocation.Revoked:
		e.add(StatusRevoked, a.Err.Error(), err)
	case revocation.Unknown:
		e.add(StatusRevocationUnknown, a.Err.Error(), err)
	default:
		e.addNoAnswer(a.Err.Error(), err)
	}
}

// addNoAnswer is for a certificate of which nobody could say anything.
func (e *ChainElement) addNoAnswer(detail string, err error) {
	e.add(StatusRevocationUnknown, detail, err)
	e.add(StatusOfflineRevocation, detail, err)
}

// revocationError is a ChainStatus's Err.
type revocationError struct {
	cert *x509.Certificate
	err  error
}

func (e *revocationError) Error() string {
	return "sslstream: revocation of " + certificateName(e.cert) + ": " + e.err.Error()
}
func (e *revocationError) Unwrap() error { return e.err }

// answers finds out about the elements named, each with the next one as its issuer. What needs to be asked is asked at once.
func (v *validation) answers(p *policy, chain *Chain, about []int, now time.Time) []revocation.Answer {
	checker := &revocation.Checker{Cache: revocationCache, Client: p.client, Budget: &v.budget, Now: now}
	answers := make([]revocation.Answer, len(about))
	took := make([]time.Duration, len(about))
	var asking sync.WaitGroup
	for at, i := range about {
		cert := chain.Elements[i].Certificate
		issuer := cert
		if i+1 < len(chain.Elements) {
			issuer = chain.Elements[i+1].Certificate
		} else if !selfIssued(cert) {
			answers[at].Err = errors.New("its issuer is not in the chain")
			continue
		}
		var staple []byte
		if i == 0 {
			staple = v.staple
		}
		began := time.Now()
		known, stapleErr := checker.Local(cert, issuer, staple)
		if known.Source == revocation.FromStaple && known.Status == revocation.Good {
			v.stapleUntil = known.Until
		}
		if known.Status == revocation.Good && (known.Source == revocation.FromStaple || p.revocationMode == RevocationOffline) &&
			(v.goodUntil.IsZero() || known.Until.Before(v.goodUntil)) {
			v.goodUntil = known.Until
		}
		took[at] = time.Since(began)
		final := known.Status == revocation.Good || known.Status == revocation.Revoked
		if final || p.revocationMode == RevocationOffline {
			if known.Status == revocation.Unavailable {
				known.Err = errors.Join(errors.New("nothing is stapled or remembered that counts, and nobody is asked offline"), stapleErr)
			}
			answers[at] = known
			continue
		}
		during := v.downloading()
		asking.Go(func() {
			asked := checker.Ask(during, cert, issuer)
			took[at] = time.Since(began)
			if asked.Status == revocation.Unavailable {
				if tried := asked.Err; known.Status != revocation.Unavailable { // its error is stapleErr
					asked = known
					asked.Err = errors.Join(known.Err, tried)
				} else {
					asked.Err = errors.Join(tried, stapleErr)
				}
			}
			answers[at] = asked
		})
	}
	asking.Wait()
	for at, i := range about {
		a := answers[at]
		v.trace.revocation(chain.Elements[i].Certificate, a.Source, a.Status.String(), took[at], a.Err)
	}
	return answers
}

// requireStaple holds a server to the promise of a certificate that is to be stapled (RFC 7633): without a response that says that it
// is good, nothing else counts but that it is revoked.
func (v *validation) requireStaple(leaf *ChainElement) {
	if !v.ofServer || !v.stapleUntil.IsZero() || !mustStaple(leaf.Certificate) || leaf.has(StatusRevoked) {
		return
	}
	leaf.Status = slices.DeleteFunc(leaf.Status, func(s ChainStatus) bool {
		return s.Flag&(StatusRevocationUnknown|StatusOfflineRevocation) != 0
	})
	err := errors.New("it must be stapled (RFC 7633), and the server staples no OCSP response that counts")
	leaf.addNoAnswer(err.Error(), &revocationError{leaf.Certificate, err})
}

var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// mustStaple reports whether a certificate has the TLS feature status_request, and also where the extension does not parse.
func mustStaple(c *x509.Certificate) bool {
	const statusRequest, statusRequestV2 = 5, 17
	for _, e := range c.Extensions {
		if e.Id.Equal(oidTLSFeature) {
			var features []int
			_, err := asn1.Unmarshal(e.Value, &features)
			return err != nil || slices.Contains(features, statusRequest) || slices.Contains(features, statusRequestV2)
		}
	}
	return false
}
