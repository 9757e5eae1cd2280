package sslstream

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/sslstream/sslstream/internal/fetch"
)

// This file answers where a missing issuer is had: from where the certificate says, by Authority Information Access (RFC 5280,
// Section 4.2.2.1). What is downloaded is a candidate like those that the peer sent; it is not trusted.

// The bounds, besides fetch's on requests and their time.
const (
	maxIssuerBytes      = 1 << 20  // of one answer
	maxCertificateBytes = 64 << 10 // of one certificate in it
	maxIssuers          = 32       // certificates in it
	maxIssuerURLs       = 3        // of one certificate
	maxURL              = 200      // bytes of a URL in a text for people
	// maxIssuerKey is how many bits an RSA key may have, as in crypto/tls for what a peer sends: a signature by a larger one takes long to
	// check, which no context ends.
	maxIssuerKey = 8192

	issuerMemory   = time.Hour        // how long an issuer is remembered
	issuerOblivion = 10 * time.Second // how long anything else is
	issuerPatience = 5 * time.Second  // how long a server must have been given before its silence is remembered as a failure
	// issuerRoom is for all that is remembered. A parsed certificate can take some times what it has in bytes.
	issuerRoom   = 32 << 20
	issuerWeight = 16
)

// completed looks for what best lacks, issuer by issuer, for as long as that leads anywhere. It returns the chains that are
// valid now, or makes best the best there is.
func (p *policy) completed(v *validation, best *examined, leaf *x509.Certificate, sent []*x509.Certificate, now time.Time) [][]*x509.Certificate {
	known := slices.Concat(sent, p.extra)
	var asked []*x509.Certificate
	var failed error
	for len(asked) < maxChainLength && v.ctx.Err() == nil {
		last := best.lacksIssuer()
		if last == nil || slices.ContainsFunc(asked, last.Equal) {
			break
		}
		asked = append(asked, last)
		more, err := v.issuersOf(p.client, last)
		failed = err
		before := len(known)
		for _, c := range more {
			if !slices.ContainsFunc(known, c.Equal) {
				known = append(known, c)
			}
		}
		if len(known) == before {
			break
		}
		if verified := p.verify(leaf, known, now); len(verified) > 0 {
			return verified
		}
		*best = p.explain(leaf, known, now, best.checks)
	}
	if failed == nil && len(best.path.certs) >= maxChainLength {
		failed = fmt.Errorf("the chain is longer than %d certificates", maxChainLength)
	}
	if failed != nil {
		best.tell(p, failed)
	}
	return nil
}

// lacksIssuer is the last certificate of a path of which nothing is missing but its issuer; nil for another one. Who
// connects can send any certificates: those whose signatures do not hold lead nowhere.
func (e *examined) lacksIssuer() *x509.Certificate {
	if e.path.end != endNoIssuer && e.path.end != endCycle || e.chain.listed(StatusNotSignatureValid|StatusHasWeakSignature) {
		return nil
	}
	return e.path.certs[len(e.path.certs)-1]
}

// tell adds to PartialChain why the issuer could not be had.
func (e *examined) tell(p *policy, failed error) {
	last := len(e.chain.Elements) - 1
	for i := range e.chain.Elements[last].Status {
		if s := &e.chain.Elements[last].Status[i]; s.Flag == StatusPartialChain {
			s.Detail += "; " + oneLine(failed.Error())
			s.Err = errors.Join(s.Err, failed)
		}
	}
	p.unite(e.chain, last)
}

// issuersOf downloads what a certificate says of its issuers, from the first place that has one.
func (v *validation) issuersOf(client *http.Client, c *x509.Certificate) ([]*x509.Certificate, error) {
	failures := []error{}
	for _, url := range c.IssuingCertificateURL[:min(len(c.IssuingCertificateURL), maxIssuerURLs)] {
		if err := fetch.Allowed(url); err != nil {
			failures = append(failures, errors.New(shortened(err.Error(), maxURL)))
			continue
		}
		issuers, err := downloadedIssuers.get(v.downloading(), client, &v.budget, url, c)
		if err == nil {
			if haveIssuer(issuers, c) {
				return issuers, nil
			}
			err = errors.New("the answer is no certificate of its issuer's")
		}
		failures = append(failures, fmt.Errorf("download from %s: %w", shortened(url, maxURL), err))
	}
	return nil, errors.Join(failures...)
}

// haveIssuer says whether c is issued by one of these.
func haveIssuer(issuers []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(issuers, func(issuer *x509.Certificate) bool {
		return bytes.Equal(issuer.RawSubject, c.RawIssuer) && checkSignature(c, issuer) == nil
	})
}

// issuerStore remembers downloads. It is safe for concurrent use.
type issuerStore struct {
	flights fetch.Flights[issuerSource, []*x509.Certificate]
	memory  *fetch.Memory // issuerDownload by issuerSource
}

type issuerSource struct {
	client *http.Client
	url    string
}

type issuerDownload struct {
	issuers []*x509.Certificate
	err     error
	until   time.Time
}

var downloadedIssuers = issuerStore{memory: fetch.NewMemory(issuerRoom)}

// get returns what is served at url, where c says that its issuer is. What is somebody's issuer is remembered for long. Who
// connects chooses where that is said to be, and a server may be mistaken for a moment: anything else is asked for again soon.
func (s *issuerStore) get(ctx context.Context, client *http.Client, budget *fetch.Budget, url string, c *x509.Certificate) ([]*x509.Certificate, error) {
	source := issuerSource{client, url}
	if known, ok := s.remembered(source); ok {
		return known.issuers, known.err
	}
	began := time.Now()
	issuers, err := s.flights.Do(ctx, source, func(ctx context.Context) ([]*x509.Certificate, error) {
		if known, ok := s.remembered(source); ok { // it came in between
			return known.issuers, known.err
		}
		body, err := fetch.Do(ctx, client, budget, fetch.Request{URL: url, Accept: "application/pkix-cert, application/pkcs7-mime, */*;q=0.1", MaxBytes: maxIssuerBytes})
		var issuers []*x509.Certificate
		if err == nil {
			issuers, err = parseIssuers(body)
		}
		switch {
		case err == nil && haveIssuer(issuers, c):
			s.store(source, issuerDownload{issuers: issuers, until: time.Now().Add(issuerMemory)})
		case err == nil:
			s.store(source, issuerDownload{issuers: issuers, until: time.Now().Add(issuerOblivion)})
		case ctx.Err() == nil && !errors.Is(err, fetch.ErrBudget):
			s.storeFailure(source, err)
		}
		return issuers, err
	})
	if errors.Is(err, context.DeadlineExceeded) && time.Since(began) >= issuerPatience {
		s.storeFailure(source, err)
	}
	return issuers, err
}

func (s *issuerStore) remembered(source issuerSource) (known issuerDownload, ok bool) {
	known, ok = s.memory.Get(source).(issuerDownload)
	return known, ok && time.Now().Before(known.until)
}

func (s *issuerStore) storeFailure(source issuerSource, err error) {
	s.store(source, issuerDownload{err: fmt.Errorf("%w (a moment ago; not asked again so soon)", err), until: time.Now().Add(issuerOblivion)})
}

func (s *issuerStore) store(source issuerSource, d issuerDownload) {
	weight := 1<<10 + len(source.url)
	for _, c := range d.issuers {
		weight += issuerWeight * len(c.Raw)
	}
	s.memory.Put(source, d, weight)
}

// parseIssuers reads what is served as an issuer's certificate: the certificate itself, or a "certs-only" CMS message (RFC 5652,
// Section 5), and PEM, which is served too.
func parseIssuers(body []byte) ([]*x509.Certificate, error) {
	var ders [][]byte
	if block, rest := pem.Decode(body); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			switch block.Type {
			case "CERTIFICATE":
				ders = append(ders, block.Bytes)
			case "PKCS7", "CMS":
				ders = append(ders, certificatesOnly(block.Bytes)...)
			}
		}
	} else if ders = certificatesOnly(body); len(ders) == 0 {
		ders = [][]byte{body}
	}
	if len(ders) == 0 || len(ders) > maxIssuers {
		return nil, fmt.Errorf("the answer has %d certificates, not 1 to %d", len(ders), maxIssuers)
	}
	issuers := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		if len(der) > maxCertificateBytes {
			return nil, fmt.Errorf("the answer has a certificate of %d bytes, and %d are possible", len(der), maxCertificateBytes)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the answer is no certificate: %w", err)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxIssuerKey {
			return nil, fmt.Errorf("the answer has an RSA key of %d bits, and %d are possible", key.N.BitLen(), maxIssuerKey)
		}
		issuers[i] = c
	}
	return issuers, nil
}

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// certificatesOnly returns the DER certificates in a CMS message, none for anything else. Nobody signs such a message.
func certificatesOnly(der []byte) [][]byte {
	const certificate = cryptobyte_asn1.SEQUENCE
	explicit0 := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	input := cryptobyte.String(der)
	var message, content, signed, skipped, set cryptobyte.String
	var kind asn1.ObjectIdentifier
	var version int
	if !input.ReadASN1(&message, cryptobyte_asn1.SEQUENCE) || !message.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidSignedData) ||
		!message.ReadASN1(&content, explicit0) || !content.ReadASN1(&signed, cryptobyte_asn1.SEQUENCE) ||
		!signed.ReadASN1Integer(&version) || !signed.ReadASN1(&skipped, cryptobyte_asn1.SET) || !signed.ReadASN1(&skipped, cryptobyte_asn1.SEQUENCE) ||
		!signed.ReadASN1(&set, explicit0) {
		return nil
	}
	var ders [][]byte
	for !set.Empty() {
		var one cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !set.ReadAnyASN1Element(&one, &tag) {
			return nil
		}
		if tag == certificate {
			ders = append(ders, one)
		}
	}
	return ders
}
