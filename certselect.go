package sslstream

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// LocalCertificateSelectionCallback picks the client's certificate when the server asks for one. It corresponds to the
// delegate of the same name, which is also called before that.
//
//	return &cert, nil    sends it, whatever the server finds acceptable
//	return nil, nil      sends none
//	return nil, err      fails the handshake; in TLS 1.3 crypto/tls tells the server nothing then
//
// It runs on the goroutine that authenticates, or on one that reads where the server renegotiates; never for a resumed
// session. ctx ends with the handshake.
type LocalCertificateSelectionCallback func(ctx context.Context, s *Stream, req CertificateRequest) (*tls.Certificate, error)

// CertificateRequest is what there is to choose by. It corresponds to LocalCertificateSelectionCallback's parameters.
type CertificateRequest struct {
	TargetHost        string
	Local             []tls.Certificate           // ClientCertificates, Leaf set
	Remote            *x509.Certificate           // the server's
	AcceptableIssuers []string                    // as pkix.Name.String gives them: comparable with Leaf.Issuer.String()
	Info              *tls.CertificateRequestInfo // DER names, signature schemes, SupportsCertificate
}

// ServerCertificateSelectionCallback picks the server's certificate by server name (RFC 6066, Section 3) and by what
// else the client offers. It corresponds to the delegate of the same name. (nil, nil) and an error fail the handshake.
//
// It runs once in a handshake, on the goroutine that authenticates, also where the client offers to resume a session:
// only one that was made with the same certificate is resumed. ctx ends with the handshake.
type ServerCertificateSelectionCallback func(ctx context.Context, s *Stream, hello ClientHelloInfo) (*tls.Certificate, error)

// CertificateContext is a certificate with the intermediates to send and, on a server, an OCSP response to staple (RFC 6066,
// Section 8). It corresponds to SslStreamCertificateContext.
//
// The response is fetched and renewed in the background, on behalf of handshakes and without one ever waiting for it: the
// first handshakes may have none. It is renewed half way to its end, tried again 5 s after a failure, and later after more of
// them, and stapled only while it counts and says that the certificate is good.
//
// On a server it owns the session-ticket keys: server options that are made anew for each connection can resume each
// other's sessions if they share one. It is safe for concurrent use and needs no Close: without handshakes it does nothing.
type CertificateContext struct {
	certificate   tls.Certificate // without a staple
	intermediates []*x509.Certificate
	stapler       *stapler
	tickets       ticketKeys
}

// CertificateContextOptions are NewCertificateContext's settings; the zero value, and nil, are all defaults.
type CertificateContextOptions struct {
	// AdditionalCertificates are candidates for the intermediates to send, and for the issuer of the certificate.
	AdditionalCertificates []*x509.Certificate
	// Offline forbids downloads: neither missing intermediates nor OCSP responses are fetched. A response that comes with the target,
	// in its OCSPStaple, is stapled for as long as it counts, which can be said only where the issuer is among the system's roots, comes
	// with the target or is in AdditionalCertificates; otherwise it is not stapled.
	Offline bool
	// HTTPClient makes the downloads; nil: a private one, with the environment's proxies. Redirects to anything but http and https, and
	// more than 5, are refused whatever it says.
	HTTPClient *http.Client
}

// NewCertificateContext checks target, which must have its private key, and works out the intermediates to send, without
// the root: from those that come with it and from AdditionalCertificates, as far as they link up. Where they do not lead to
// a root of the system's, or a self-signed certificate among them, it downloads what is missing (RFC 5280, Section 4.2.2.1),
// unless it is to stay Offline: that takes 15 s at the most, and what cannot be had is no error. It corresponds to
// SslStreamCertificateContext.Create.
func NewCertificateContext(target tls.Certificate, opts *CertificateContextOptions) (*CertificateContext, error) {
	if opts == nil {
		opts = &CertificateContextOptions{}
	}
	if slices.Contains(opts.AdditionalCertificates, nil) {
		return nil, errors.New("sslstream: AdditionalCertificates has a nil certificate")
	}
	certificate, err := usableCertificate(target)
	if err != nil {
		return nil, fmt.Errorf("sslstream: certificate context: %w", err)
	}
	candidates := slices.Clone(opts.AdditionalCertificates)
	for _, der := range certificate.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("sslstream: certificate context: a certificate that comes with the target does not parse: %w", err)
		}
		candidates = append(candidates, c)
	}
	issuers := chainAbove(certificate.Leaf, candidates, opts)
	c := &CertificateContext{certificate: certificate}
	c.certificate.Certificate = [][]byte{certificate.Leaf.Raw}
	for _, i := range issuers {
		if !selfIssued(i) {
			c.intermediates = append(c.intermediates, i)
			c.certificate.Certificate = append(c.certificate.Certificate, i.Raw)
		}
	}
	c.certificate.OCSPStaple = nil
	if len(issuers) > 0 {
		c.stapler = newStapler(certificate.Leaf, issuers[0], target.OCSPStaple, opts.HTTPClient, opts.Offline)
	}
	return c, nil
}

// chainAbove is the chain above leaf, as far as it is to be had, with the root where that is known.
func chainAbove(leaf *x509.Certificate, candidates []*x509.Certificate, opts *CertificateContextOptions) []*x509.Certificate {
	p := policy{download: !opts.Offline, retrievalTimeout: defaultURLRetrievalTimeout, client: opts.HTTPClient}
	v := p.validation(context.Background())
	defer v.end()
	var issuers []*x509.Certificate
	next := func(last *x509.Certificate) *x509.Certificate {
		var root *x509.Certificate
		for _, c := range candidates {
			if !bytes.Equal(c.RawSubject, last.RawIssuer) || c.Equal(leaf) || slices.ContainsFunc(issuers, c.Equal) || checkSignature(last, c) != nil {
				continue
			}
			if !selfIssued(c) {
				return c // also where the root is there: peers may trust the one that signed it besides
			}
			root = c
		}
		return root
	}
	for last := leaf; len(issuers) < maxChainLength && !selfIssued(last); last = issuers[len(issuers)-1] {
		issuer := next(last)
		if issuer == nil {
			f := finder{policy: &p, now: time.Now()}
			if anchors := f.anchors(last); len(anchors) > 0 && !anchors[0].Equal(last) {
				return append(issuers, anchors[0])
			} else if len(anchors) == 0 && p.download {
				more, _ := v.issuersOf(p.client, last)
				candidates = append(candidates, more...)
				issuer = next(last)
			}
		}
		if issuer == nil {
			break
		}
		issuers = append(issuers, issuer)
	}
	return issuers
}

// selfIssued reports whether a certificate's issuer has its subject's name, as a root's has.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// shown is the certificate as a server shows it now.
func (c *CertificateContext) shown() *tls.Certificate {
	staple := c.stapler.staple()
	if staple == nil {
		return &c.certificate
	}
	own := c.certificate
	own.OCSPStaple = staple
	return &own
}

// TargetCertificate is the certificate itself. It corresponds to SslStreamCertificateContext.TargetCertificate.
func (c *CertificateContext) TargetCertificate() *x509.Certificate { return c.certificate.Leaf }

// IntermediateCertificates are those that are sent with it, in order. It corresponds to
// SslStreamCertificateContext.IntermediateCertificates.
func (c *CertificateContext) IntermediateCertificates() []*x509.Certificate {
	return slices.Clone(c.intermediates)
}

// check refuses a context that does not come from NewCertificateContext and has nothing to show; nil is none. field names it
// in the error.
func (c *CertificateContext) check(field string) error {
	if c != nil && c.certificate.Leaf == nil {
		return fmt.Errorf("sslstream: %s is empty; make it with NewCertificateContext", field)
	}
	return nil
}

// usableCertificate returns c with its leaf parsed, or says why this side cannot authenticate with it.
func usableCertificate(c tls.Certificate) (tls.Certificate, error) {
	if len(c.Certificate) == 0 {
		return c, errors.New("there is no certificate in it")
	}
	if c.PrivateKey == nil {
		return c, errors.New("the certificate has no private key")
	}
	key, ok := c.PrivateKey.(interface{ Public() crypto.PublicKey })
	if !ok {
		return c, fmt.Errorf("its private key is a %T, which is neither a crypto.Signer nor a crypto.Decrypter", c.PrivateKey)
	}
	if emptyKey(c.PrivateKey) {
		return c, fmt.Errorf("its private key is empty: a %T without a value", c.PrivateKey)
	}
	// What is sent counts: a Leaf may have been forgotten when the certificate was renewed.
	if c.Leaf == nil || !slices.Equal(c.Leaf.Raw, c.Certificate[0]) {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return c, fmt.Errorf("the certificate does not parse: %w", err)
		}
		c.Leaf = leaf
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && !public.Equal(c.Leaf.PublicKey) {
		return c, fmt.Errorf("the private key does not belong to the certificate of %s", certificateName(c.Leaf))
	}
	return c, nil
}

// emptyKey reports whether a key is what is left where loading it failed: asked for anything, it would panic.
func emptyKey(key crypto.PrivateKey) bool {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k == nil
	case *ecdsa.PrivateKey:
		return k == nil || k.Curve == nil
	case ed25519.PrivateKey:
		return len(k) != ed25519.PrivateKeySize
	case *ed25519.PrivateKey:
		return k == nil || len(*k) != ed25519.PrivateKeySize
	}
	return false
}

// usableCertificates is usableCertificate for a list; field names it in the error.
func usableCertificates(field string, list []tls.Certificate) ([]tls.Certificate, error) {
	usable := make([]tls.Certificate, len(list))
	for i, c := range list {
		var err error
		if usable[i], err = usableCertificate(c); err != nil {
			return nil, fmt.Errorf("sslstream: %s, number %d: %w", field, i, err)
		}
	}
	return usable, nil
}

// certificateID tells certificates apart in sessions.
type certificateID [sha256.Size]byte

// idOf is a certificate's ID; zero for none.
func idOf(c *x509.Certificate) certificateID {
	if c == nil {
		return certificateID{}
	}
	return sha256.Sum256(c.Raw)
}

// clientCertificates is where a client's certificate comes from: the first of these that is set.
type clientCertificates struct {
	context *CertificateContext
	choose  LocalCertificateSelectionCallback
	get     func(*tls.CertificateRequestInfo) (*tls.Certificate, error) // TLSConfig's
	list    []tls.Certificate
}

func (c *clientCertificates) none() bool {
	return c.context == nil && c.choose == nil && c.get == nil && len(c.list) == 0
}

// fixed lists the certificates that can be sent without anybody being asked.
func (c *clientCertificates) fixed() []tls.Certificate {
	switch {
	case c.context != nil:
		return []tls.Certificate{c.context.certificate}
	case c.choose != nil || c.get != nil:
		return nil
	}
	return c.list
}

// identity stands for these certificates in the key of a session cache.
func (c *clientCertificates) identity() string {
	if c.context == nil && (c.choose != nil || c.get != nil) {
		return "callback"
	}
	var ids strings.Builder
	for _, own := range c.fixed() {
		fmt.Fprintf(&ids, "%x ", idOf(own.Leaf))
	}
	return ids.String()
}

// pick answers a server's request; chosen says that the user was asked. The certificate is empty where none is to be
// sent.
func (c *clientCertificates) pick(ctx context.Context, s *Stream, info *tls.CertificateRequestInfo) (own *tls.Certificate, chosen bool, err error) {
	switch {
	case c.context != nil:
		return &c.context.certificate, false, nil
	case c.choose != nil:
		own, err = c.choose(ctx, s, CertificateRequest{
			TargetHost:        s.TargetHostName(),
			Local:             slices.Clone(c.list),
			Remote:            s.RemoteCertificate(),
			AcceptableIssuers: issuerNames(info.AcceptableCAs),
			Info:              info,
		})
	case c.get != nil:
		own, err = c.get(info)
	default:
		for i := range c.list {
			if info.SupportsCertificate(&c.list[i]) == nil {
				return &c.list[i], false, nil
			}
		}
		return &tls.Certificate{}, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	if own == nil || len(own.Certificate) == 0 {
		return &tls.Certificate{}, true, nil
	}
	usable, err := usableCertificate(*own)
	if err != nil {
		return nil, true, fmt.Errorf("sslstream: the certificate selected for the client: %w", err)
	}
	return &usable, true, nil
}

// issuerNames makes DER names comparable with pkix.Name.String. One that does not parse is left out.
func issuerNames(ders [][]byte) []string {
	names := make([]string, 0, len(ders))
	for _, der := range ders {
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
			continue
		}
		var name pkix.Name
		name.FillFromRDNSequence(&rdns)
		names = append(names, name.String())
	}
	return names
}

// serverCertificates is where a server's certificate comes from: the first of these that is set.
type serverCertificates struct {
	context *CertificateContext
	choose  ServerCertificateSelectionCallback
	single  *tls.Certificate
	config  *tls.Config // a TLSConfig's Certificates, NameToCertificate and GetCertificate
}

// pick answers a client's hello.
func (c *serverCertificates) pick(ctx context.Context, s *Stream, hello ClientHelloInfo) (*tls.Certificate, error) {
	var own *tls.Certificate
	var err error
	switch {
	case c.context != nil:
		return c.context.shown(), nil
	case c.single != nil:
		return c.single, nil
	case c.choose != nil:
		own, err = c.choose(ctx, s, hello)
	default:
		own, err = configCertificate(c.config, hello.Info)
	}
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, fmt.Errorf("sslstream: no certificate was selected for the server name %q", hello.ServerName)
	}
	usable, err := usableCertificate(*own)
	if err != nil {
		return nil, fmt.Errorf("sslstream: the certificate selected for the server name %q: %w", hello.ServerName, err)
	}
	return &usable, nil
}

// configCertificate picks as crypto/tls does by a tls.Config, which keeps to itself what it picked.
func configCertificate(config *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if config.GetCertificate != nil && (len(config.Certificates) == 0 || hello.ServerName != "") {
		if own, err := config.GetCertificate(hello); own != nil || err != nil {
			return own, err
		}
	}
	//lint:ignore SA1019 the user's config may still use it
	if byName := config.NameToCertificate; byName != nil {
		name := strings.ToLower(hello.ServerName)
		if own, ok := byName[name]; ok {
			return own, nil
		}
		if _, parent, ok := strings.Cut(name, "."); ok {
			if own, ok := byName["*."+parent]; ok {
				return own, nil
			}
		}
	}
	for i := range config.Certificates {
		if hello.SupportsCertificate(&config.Certificates[i]) == nil {
			return &config.Certificates[i], nil
		}
	}
	if len(config.Certificates) > 0 {
		return &config.Certificates[0], nil // the client says why it cannot use it
	}
	return nil, nil
}
