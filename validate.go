package sslstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RemoteCertificateValidationCallback has the last word on the peer's certificate. It corresponds to the
// delegate of the same name, but answers with what remains of errs instead of a bool:
//
//	return errs, nil                                     the default verdict
//	return errs &^ RemoteCertificateNameMismatch, nil    forgives the name, nothing else
//	return errs, errPin                                  adds an objection
//	return 0, nil                                        accepts whatever comes
//
// Anything left or an error refuses the peer: what was left is the AuthenticationError's PolicyErrors, the
// error its Err.
//
// It runs exactly once in every handshake that gets as far as the peer's certificate, resumed ones included, on the
// goroutine that authenticates and before any application byte. It does not run again where the server renegotiates, which
// it can only with the same certificate. s answers for what is negotiated already, but must not be read or written. ctx ends with the
// handshake. On a server it runs also when the client sent no certificate: cert and chain are nil then, and errs is
// RemoteCertificateNotAvailable if one was required, else 0.
type RemoteCertificateValidationCallback func(ctx context.Context, s *Stream, cert *x509.Certificate, chain *Chain, errs PolicyErrors) (PolicyErrors, error)

// PolicyErrors is a set of reasons to refuse the peer. It corresponds to SslPolicyErrors and has its numbers;
// the zero value is None.
type PolicyErrors uint32

// The reasons by their .NET numbers.
const (
	// RemoteCertificateNotAvailable: a certificate was required and none was sent.
	RemoteCertificateNotAvailable PolicyErrors = 1
	// RemoteCertificateNameMismatch: the certificate is not for the target host (RFC 9525), or there is none to
	// compare it with. Only subject alternative names count, never the common name.
	RemoteCertificateNameMismatch PolicyErrors = 2
	// RemoteCertificateChainErrors: the chain's Status says what is wrong.
	RemoteCertificateChainErrors PolicyErrors = 4
)

var policyErrorNames = map[uint32]string{
	uint32(RemoteCertificateNotAvailable): "RemoteCertificateNotAvailable",
	uint32(RemoteCertificateNameMismatch): "RemoteCertificateNameMismatch",
	uint32(RemoteCertificateChainErrors):  "RemoteCertificateChainErrors",
}

// String is "None" or the names, as in "RemoteCertificateNameMismatch|RemoteCertificateChainErrors".
func (e PolicyErrors) String() string { return flagNames(uint32(e), policyErrorNames) }

// Chain is a certificate chain with everything that is wrong with it, not the first error only. It
// corresponds to X509Chain. It is never modified once it is handed out.
type Chain struct {
	Elements []ChainElement // leaf first; as far as it could be built
	Status   []ChainStatus  // the union, without what VerificationFlags ignore: empty means valid
}

// Has reports whether any of the flags is in Status. A nil chain has none.
func (c *Chain) Has(f ChainStatusFlags) bool {
	return c != nil && slices.ContainsFunc(c.Status, func(s ChainStatus) bool { return s.Flag&f != 0 })
}

// String is one line for each element: its subject, and what is wrong with it. A nil chain's is empty.
func (c *Chain) String() string {
	if c == nil {
		return ""
	}
	var b strings.Builder
	for i, e := range c.Elements {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d %s", i, certificateName(e.Certificate))
		for _, s := range e.Status {
			fmt.Fprintf(&b, "\n  %s", s)
		}
	}
	return b.String()
}

// summary is Status in one line, taken apart again into the elements that each was found on.
func (c *Chain) summary() string {
	var words []string
	for _, s := range c.Status {
		for _, e := range c.Elements {
			for _, es := range e.Status {
				// An element's detail that Status lacks was ignored there.
				if es.Flag == s.Flag && strings.Contains(s.Detail, es.Detail) {
					words = append(words, certificateName(e.Certificate)+": "+es.String())
				}
			}
		}
	}
	return strings.Join(words, "; ")
}

// certificateName is what people know a certificate by.
func certificateName(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return name
	}
	if len(c.DNSNames) > 0 {
		return "DNS=" + c.DNSNames[0]
	}
	return "serial number " + c.SerialNumber.String()
}

// ChainElement is one certificate of a chain. It corresponds to X509ChainElement.
type ChainElement struct {
	Certificate *x509.Certificate
	Status      []ChainStatus // all that is wrong with it, also what VerificationFlags ignore
}

// ChainStatus is one thing that is wrong. It corresponds to X509ChainStatus.
type ChainStatus struct {
	Flag   ChainStatusFlags // one of them
	Detail string           // for people: which date, which usage, which responder
	Err    error            // the x509 or revocation error behind it
}

// String is the flag's name and the detail.
func (s ChainStatus) String() string {
	if s.Detail == "" {
		return s.Flag.String()
	}
	return s.Flag.String() + " (" + s.Detail + ")"
}

// ChainStatusFlags is a set of things that can be wrong with a certificate in a chain. It corresponds to
// X509ChainStatusFlags and has its numbers; the zero value is None.
type ChainStatusFlags uint32

// The statuses by their .NET numbers.
const (
	StatusNotTimeValid                     ChainStatusFlags = 0x1       // expired, or not valid yet
	StatusRevoked                          ChainStatusFlags = 0x4       // its issuer took it back
	StatusNotSignatureValid                ChainStatusFlags = 0x8       // its issuer's key did not make its signature
	StatusNotValidForUsage                 ChainStatusFlags = 0x10      // key usage, extended key usage or certificate policy forbid it
	StatusUntrustedRoot                    ChainStatusFlags = 0x20      // self-signed, and not in the trust store
	StatusRevocationUnknown                ChainStatusFlags = 0x40      // nobody could say whether it is revoked
	StatusCyclic                           ChainStatusFlags = 0x80      // its issuers lead back to it
	StatusInvalidExtension                 ChainStatusFlags = 0x100     // an extension makes no sense
	StatusInvalidPolicyConstraints         ChainStatusFlags = 0x200     // RFC 5280, Section 4.2.1.11
	StatusInvalidBasicConstraints          ChainStatusFlags = 0x400     // issued another one but is no CA, or its path length is exceeded
	StatusInvalidNameConstraints           ChainStatusFlags = 0x800     // RFC 5280, Section 4.2.1.10: constraints or names that cannot be compared
	StatusHasNotPermittedNameConstraint    ChainStatusFlags = 0x4000    // a name outside what its issuers permit
	StatusHasExcludedNameConstraint        ChainStatusFlags = 0x8000    // a name that its issuers exclude
	StatusPartialChain                     ChainStatusFlags = 0x10000   // its issuer is missing
	StatusHasWeakSignature                 ChainStatusFlags = 0x100000  // signed with SHA-1 or MD5
	StatusOfflineRevocation                ChainStatusFlags = 0x1000000 // the revocation services could not be reached
	StatusNoIssuanceChainPolicy            ChainStatusFlags = 0x2000000 // its issuers demand a certificate policy, and none is left
	StatusExplicitDistrust                 ChainStatusFlags = 0x4000000 // the trust store distrusts it
	StatusHasNotSupportedCriticalExtension ChainStatusFlags = 0x8000000 // an extension that must be understood is not
)

var chainStatusNames = map[uint32]string{
	uint32(StatusNotTimeValid):                     "NotTimeValid",
	uint32(StatusRevoked):                          "Revoked",
	uint32(StatusNotSignatureValid):                "NotSignatureValid",
	uint32(StatusNotValidForUsage):                 "NotValidForUsage",
	uint32(StatusUntrustedRoot):                    "UntrustedRoot",
	uint32(StatusRevocationUnknown):                "RevocationUnknown",
	uint32(StatusCyclic):                           "Cyclic",
	uint32(StatusInvalidExtension):                 "InvalidExtension",
	uint32(StatusInvalidPolicyConstraints):         "InvalidPolicyConstraints",
	uint32(StatusInvalidBasicConstraints):          "InvalidBasicConstraints",
	uint32(StatusInvalidNameConstraints):           "InvalidNameConstraints",
	uint32(StatusHasNotPermittedNameConstraint):    "HasNotPermittedNameConstraint",
	uint32(StatusHasExcludedNameConstraint):        "HasExcludedNameConstraint",
	uint32(StatusPartialChain):                     "PartialChain",
	uint32(StatusHasWeakSignature):                 "HasWeakSignature",
	uint32(StatusOfflineRevocation):                "OfflineRevocation",
	uint32(StatusNoIssuanceChainPolicy):            "NoIssuanceChainPolicy",
	uint32(StatusExplicitDistrust):                 "ExplicitDistrust",
	uint32(StatusHasNotSupportedCriticalExtension): "HasNotSupportedCriticalExtension",
}

// String is "None" or the names, as in "UntrustedRoot|NotTimeValid", in ascending order of number.
func (f ChainStatusFlags) String() string { return flagNames(uint32(f), chainStatusNames) }

// ChainPolicy says which chains are valid. It corresponds to X509ChainPolicy. The zero value: the system's
// roots, now, no revocation check, no downloads. It may be shared, at once too, and must not be changed after
// first use.
type ChainPolicy struct {
	// RevocationMode says whether and how to find out if certificates are revoked; zero: as the options' own
	// CertificateRevocationCheckMode says. Nobody is asked on behalf of a chain that does not lead to a trusted root by good
	// signatures: its certificates get StatusRevocationUnknown.
	RevocationMode RevocationMode
	// RevocationFlag says for which certificates of the chain; zero: RevocationExcludeRoot.
	RevocationFlag RevocationFlag
	// VerificationFlags are statuses to ignore: they stay in the elements and are left out of Chain.Status.
	VerificationFlags VerificationFlags
	// VerificationTime is the moment to verify for; zero: now, by TLSConfig.Time where that is set.
	VerificationTime time.Time
	// CustomTrustStore, if not nil, holds the only roots that are trusted. It corresponds to X509ChainTrustMode
	// CustomRootTrust; an empty pool trusts nobody. Nil: the system's roots.
	CustomTrustStore *x509.CertPool
	// ExtraStore holds candidates for building chains, besides those that the peer sent. They are not trusted.
	ExtraStore []*x509.Certificate
	// ApplicationPolicy lists the extended key usages (RFC 5280, Section 4.2.1.12) that every certificate of
	// the chain must allow, all of them. Nil: serverAuth on a client, clientAuth on a server, none in Build. Empty but not
	// nil: none.
	ApplicationPolicy []x509.ExtKeyUsage
	// CertificatePolicy lists the certificate policies (RFC 5280, Section 4.2.1.4) that the chain must be valid
	// for, all of them.
	CertificatePolicy []x509.OID
	// DownloadCertificates allows to download missing issuers from where certificates say, by Authority Information Access (RFC
	// 5280, Section 4.2.2.1). They are candidates, not trusted. Whoever connects can have a request made then, to an address
	// that it chooses.
	DownloadCertificates bool
	// URLRetrievalTimeout bounds all downloads of one validation together, of issuers, OCSP responses and CRLs; zero: 15 s.
	// A context that ends earlier ends them too.
	URLRetrievalTimeout time.Duration
	// HTTPClient makes the downloads; nil: a private one, with the environment's proxies. Redirects to anything but http and https, and
	// more than 5, are refused whatever it says. Downloads that several validations want at the same time are made once where
	// they have the same client.
	HTTPClient *http.Client
}

// Build is the verdict on cert without a handshake. It corresponds to X509Chain.Build. extra are certificates
// that came with it. An empty Status means valid; a nil ApplicationPolicy asks for no particular usage here. A nil
// policy is the zero one. The error is for what stopped the work (ctx, a configuration error), not for a bad chain.
func (p *ChainPolicy) Build(ctx context.Context, cert *x509.Certificate, extra ...*x509.Certificate) (*Chain, error) {
	if cert == nil {
		return nil, errors.New("sslstream: Build needs a certificate")
	}
	if slices.Contains(extra, nil) {
		return nil, errors.New("sslstream: Build was given a nil certificate among extra")
	}
	compiled, err := compilePolicy(p, RevocationNoCheck)
	if err != nil {
		return nil, err
	}
	if compiled.usages == nil {
		compiled.usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	ctx = orBackground(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v := compiled.validation(ctx)
	defer v.end()
	chain, _ := compiled.build(v, cert, extra, time.Now())
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return chain, nil
}

// RevocationMode says whether and how to find out if a certificate is revoked. It corresponds to
// X509RevocationMode and has its numbers; the zero value is RevocationNoCheck.
type RevocationMode int

// The modes by their .NET numbers.
const (
	RevocationNoCheck RevocationMode = 0
	RevocationOnline  RevocationMode = 1 // stapled, cached or fetched; no answer refuses the certificate
	RevocationOffline RevocationMode = 2 // stapled or cached only; no answer refuses the certificate
)

var revocationModeNames = [...]string{"NoCheck", "Online", "Offline"}

// String is "NoCheck", "Online" or "Offline", or the number of an unknown mode.
func (m RevocationMode) String() string {
	if m >= 0 && int(m) < len(revocationModeNames) {
		return revocationModeNames[m]
	}
	return strconv.Itoa(int(m))
}

// MarshalText is String; an unknown mode is an error.
func (m RevocationMode) MarshalText() ([]byte, error) {
	if m < 0 || int(m) >= len(revocationModeNames) {
		return nil, fmt.Errorf("sslstream: unknown revocation mode %d", int(m))
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText writes; case does not matter. On an error m is unchanged.
func (m *RevocationMode) UnmarshalText(text []byte) error {
	for i, name := range revocationModeNames {
		if strings.EqualFold(name, strings.TrimSpace(string(text))) {
			*m = RevocationMode(i)
			return nil
		}
	}
	return fmt.Errorf("sslstream: unknown revocation mode %q; it is NoCheck, Online or Offline", text)
}

// RevocationFlag says which certificates of a chain are asked for. It corresponds to X509RevocationFlag; the
// numbers differ so that the zero value is .NET's default, RevocationExcludeRoot.
type RevocationFlag int

// Which certificates.
const (
	RevocationExcludeRoot        RevocationFlag = iota // all but the root
	RevocationEntireChain                              // all
	RevocationEndCertificateOnly                       // the leaf
)

// VerificationFlags is a set of statuses to ignore. It corresponds to X509VerificationFlags and has its
// numbers; the zero value ignores nothing.
type VerificationFlags uint32

// The flags by their .NET numbers, each with what it ignores.
const (
	IgnoreNotTimeValid                          VerificationFlags = 1    // StatusNotTimeValid
	IgnoreInvalidBasicConstraints               VerificationFlags = 8    // StatusInvalidBasicConstraints
	AllowUnknownCertificateAuthority            VerificationFlags = 16   // StatusUntrustedRoot and StatusPartialChain
	IgnoreWrongUsage                            VerificationFlags = 32   // StatusNotValidForUsage
	IgnoreInvalidName                           VerificationFlags = 64   // the target host's name, and the name constraint statuses
	IgnoreInvalidPolicy                         VerificationFlags = 128  // StatusNoIssuanceChainPolicy and StatusInvalidPolicyConstraints
	IgnoreEndRevocationUnknown                  VerificationFlags = 256  // the leaf's StatusRevocationUnknown and StatusOfflineRevocation
	IgnoreCertificateAuthorityRevocationUnknown VerificationFlags = 1024 // the intermediates'
	IgnoreRootRevocationUnknown                 VerificationFlags = 2048 // the root's
)

const allVerificationFlags = IgnoreNotTimeValid | IgnoreInvalidBasicConstraints | AllowUnknownCertificateAuthority |
	IgnoreWrongUsage | IgnoreInvalidName | IgnoreInvalidPolicy | IgnoreEndRevocationUnknown |
	IgnoreCertificateAuthorityRevocationUnknown | IgnoreRootRevocationUnknown

// policy is a ChainPolicy, checked and copied.
type policy struct {
	roots    *x509.CertPool
	extra    []*x509.Certificate
	usages   []x509.ExtKeyUsage // nil: by role
	policies []x509.OID
	ignore   VerificationFlags
	at       time.Time // zero: now
	memo     *chainMemo

	revocationMode   RevocationMode
	revocationFlag   RevocationFlag
	download         bool
	retrievalTimeout time.Duration
	client           *http.Client // for downloads; nil: a private one
}

// compilePolicy checks p, which may be nil. mode is the options' own, which counts where the policy has none.
func compilePolicy(p *ChainPolicy, mode RevocationMode) (policy, error) {
	if p == nil {
		p = &ChainPolicy{}
	}
	c := policy{
		roots:    p.CustomTrustStore,
		extra:    slices.Clone(p.ExtraStore),
		usages:   slices.Clone(p.ApplicationPolicy),
		policies: slices.Clone(p.CertificatePolicy),
		ignore:   p.VerificationFlags,
		at:       p.VerificationTime,

		revocationMode:   mode,
		revocationFlag:   p.RevocationFlag,
		download:         p.DownloadCertificates,
		retrievalTimeout: cmp.Or(p.URLRetrievalTimeout, defaultURLRetrievalTimeout),
		client:           p.HTTPClient,
	}
	if p.RevocationMode != RevocationNoCheck {
		c.revocationMode = p.RevocationMode
	}
	switch {
	case c.revocationMode < RevocationNoCheck || c.revocationMode > RevocationOffline:
		return c, fmt.Errorf("sslstream: unknown revocation mode %d; use RevocationNoCheck, RevocationOnline or RevocationOffline", int(c.revocationMode))
	case p.RevocationFlag < RevocationExcludeRoot || p.RevocationFlag > RevocationEndCertificateOnly:
		return c, fmt.Errorf("sslstream: unknown RevocationFlag %d", int(p.RevocationFlag))
	case p.VerificationFlags&^allVerificationFlags != 0:
		return c, fmt.Errorf("sslstream: unknown VerificationFlags 0x%x", uint32(p.VerificationFlags&^allVerificationFlags))
	case p.URLRetrievalTimeout < 0:
		return c, errors.New("sslstream: URLRetrievalTimeout is negative; zero means 15 s")
	case slices.Contains(p.ExtraStore, nil):
		return c, errors.New("sslstream: ExtraStore has a nil certificate")
	}
	return c, nil
}

// verdict is what verification found before the callback had its say.
type verdict struct {
	chain    *Chain
	verified [][]*x509.Certificate // as tls.ConnectionState.VerifiedChains; empty for a chain that is not valid
	errs     PolicyErrors
	name     error // behind RemoteCertificateNameMismatch

	goodUntil time.Time // until when a new check of revocation has what this one rested on; zero: it rested on nothing that ends
}

// evidence is what there is to judge a peer by.
type evidence struct {
	sent     []*x509.Certificate // leaf first
	staple   []byte              // the OCSP response that came with them
	ofServer bool                // the peer is one
	host     targetHost          // a server's name
	required bool                // no certificate at all is an error
	resumed  bool                // all this comes from a resumed session
}

// judge is the one place that decides about a peer's certificates. ctx's end ends downloads.
func (p *policy) judge(ctx context.Context, e evidence, now time.Time) verdict {
	var v verdict
	if len(e.sent) == 0 {
		if e.required {
			v.errs = RemoteCertificateNotAvailable
		}
		return v
	}
	forRole := *p
	if forRole.usages == nil {
		forRole.usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if e.ofServer {
			forRole.usages[0] = x509.ExtKeyUsageServerAuth
		}
	}
	if e.ofServer && p.ignore&IgnoreInvalidName == 0 {
		if v.name = e.host.verify(e.sent[0]); v.name != nil {
			v.errs |= RemoteCertificateNameMismatch
		}
	}
	validation := p.validation(ctx)
	defer validation.end()
	validation.resumed, validation.ofServer, validation.staple = e.resumed, e.ofServer, e.staple
	v.chain, v.verified = forRole.build(validation, e.sent[0], e.sent[1:], now)
	v.goodUntil = validation.goodUntil
	if len(v.chain.Status) > 0 {
		v.errs |= RemoteCertificateChainErrors
	}
	return v
}

// err is what was left of the verdict as an error whose chain reaches every x509 error behind it.
func (v verdict) err(left PolicyErrors, sent []*x509.Certificate) error {
	var all []error
	if left&RemoteCertificateNotAvailable != 0 {
		all = append(all, errors.New("the peer sent no certificate"))
	}
	if left&RemoteCertificateNameMismatch != 0 && v.name != nil {
		all = append(all, v.name)
	}
	if left&RemoteCertificateChainErrors != 0 && v.chain != nil {
		for _, s := range v.chain.Status {
			if s.Err != nil {
				all = append(all, s.Err)
			}
		}
	}
	if len(all) == 0 {
		return errors.New("the RemoteCertificateValidationCallback refused the peer")
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: sent, Err: errors.Join(all...)}
}
