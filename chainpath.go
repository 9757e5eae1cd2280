package sslstream

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"time"
)

// This file answers by which paths a certificate can lead to a root, whatever is wrong with them.

// pathEnd says how a path ends; better ends are smaller.
type pathEnd int

const (
	endTrusted pathEnd = iota // in the trust store
	endSelfSigned
	endNoIssuer
	endCycle       // the only issuers are in the path already
	endWrongAnchor // the trust store has an issuer of that name with another key
)

type foundPath struct {
	certs []*x509.Certificate
	end   pathEnd
}

// finder looks for the paths from a leaf to anything that can be their end, and examines them.
type finder struct {
	policy     *policy
	now        time.Time
	candidates []*x509.Certificate
	checks     int // signatures checked so far, or about to be
	paths      []foundPath
}

func (f *finder) known(c *x509.Certificate) bool {
	return slices.ContainsFunc(f.candidates, c.Equal)
}

func (f *finder) found(end pathEnd, path ...*x509.Certificate) {
	f.paths = append(f.paths, foundPath{slices.Clone(path), end})
}

// extend continues path, which is never empty, to all its possible ends.
func (f *finder) extend(path []*x509.Certificate) {
	last := path[len(path)-1]
	if len(f.paths) >= maxChainPaths {
		return
	}
	if len(path) >= maxChainLength {
		f.found(endNoIssuer, path...)
		return
	}
	before := len(f.paths)
	for _, anchor := range f.anchors(last) {
		if anchor.Equal(last) {
			f.found(endTrusted, path...)
			return
		}
		f.found(endTrusted, append(slices.Clip(path), anchor)...)
	}
	cycle := false
	var namesakes []*x509.Certificate
	for _, c := range f.candidates {
		if !bytes.Equal(c.RawSubject, last.RawIssuer) || c.Equal(last) {
			continue
		}
		switch {
		case slices.ContainsFunc(path, c.Equal):
			cycle = true
		case f.signed(last, c):
			f.extend(append(slices.Clip(path), c))
		case len(c.SubjectKeyId) == 0 || len(last.AuthorityKeyId) == 0 || bytes.Equal(c.SubjectKeyId, last.AuthorityKeyId):
			namesakes = append(namesakes, c)
		}
	}
	if selfIssued(last) && (len(namesakes) == 0 || f.signed(last, last)) {
		f.found(endSelfSigned, path...)
	}
	if len(f.paths) > before {
		return
	}
	for _, c := range namesakes {
		f.extend(append(slices.Clip(path), c))
	}
	switch {
	case len(f.paths) > before:
	case cycle:
		f.found(endCycle, path...)
	case f.policy.hasAnchorNamed(last.RawIssuer):
		f.found(endWrongAnchor, path...)
	default:
		f.found(endNoIssuer, path...)
	}
}

// anchors returns what the trust store has as an issuer of c, or c itself where that is in it. A pool cannot
// be enumerated, so Verify is asked, with a copy of c in which nothing but its signature can fail, and for moments at
// which c's issuer was likely valid: an expired root must be found to be called expired.
func (f *finder) anchors(c *x509.Certificate) []*x509.Certificate {
	if !f.mayCheck(1) {
		return nil
	}
	harmless := harmlessCopy(c)
	for _, at := range []time.Time{f.now, c.NotBefore, c.NotAfter} {
		chains, err := harmless.Verify(x509.VerifyOptions{
			Roots:       f.policy.roots,
			CurrentTime: at,
			KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err != nil {
			continue
		}
		var anchors []*x509.Certificate
		for _, chain := range chains {
			anchor := chain[len(chain)-1]
			if anchor == harmless {
				anchor = c
			}
			anchors = append(anchors, anchor)
		}
		return anchors
	}
	return nil
}

// signed reports whether parent's key made child's signature, a weak one included.
func (f *finder) signed(child, parent *x509.Certificate) bool {
	return f.mayCheck(1) && checkSignature(child, parent) == nil
}

// mayCheck takes n signature checks out of the budget.
func (f *finder) mayCheck(n int) bool {
	f.checks += n
	return f.checks <= maxSignatureChecks
}

// checkSignature is nil where parent's key made child's signature. A signature with SHA-1 counts here: it is
// weak, not wrong. crypto/x509 checks one only in requests and CRLs, so child goes in as a request.
func checkSignature(child, parent *x509.Certificate) error {
	if weakSignature(child) {
		err := (&x509.CertificateRequest{
			SignatureAlgorithm:       child.SignatureAlgorithm,
			RawTBSCertificateRequest: child.RawTBSCertificate,
			Signature:                child.Signature,
			PublicKey:                parent.PublicKey,
		}).CheckSignature()
		var insecure x509.InsecureAlgorithmError
		if errors.As(err, &insecure) {
			return nil // MD5: nothing can be said but that it is weak
		}
		return err
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
}

func weakSignature(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// hasAnchorNamed reports whether a custom trust store has a certificate of that subject.
func (p *policy) hasAnchorNamed(subject []byte) bool {
	if p.roots == nil {
		return false
	}
	//lint:ignore SA1019 the pool is the user's: where it holds the system's roots too, this only sees less
	return slices.ContainsFunc(p.roots.Subjects(), func(s []byte) bool { return bytes.Equal(s, subject) })
}

// harmlessCopy is c with everything taken out that could make Verify refuse it or a chain with it, but for
// its signature.
func harmlessCopy(c *x509.Certificate) *x509.Certificate {
	h := *c
	h.NotBefore, h.NotAfter = time.Time{}, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	h.UnhandledCriticalExtensions = nil
	h.BasicConstraintsValid, h.IsCA, h.MaxPathLen, h.MaxPathLenZero = true, true, -1, false
	h.KeyUsage = 0
	// Verify takes the names for absent where the extension is.
	h.Extensions = slices.Clone(c.Extensions)
	h.Extensions = slices.DeleteFunc(h.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	keepConstraints(&h, &x509.Certificate{}, true, true)
	keepPolicies(&h, &x509.Certificate{})
	return &h
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

func keepNames(c, original *x509.Certificate) { c.Extensions = original.Extensions }

func keepConstraints(c, original *x509.Certificate, permitted, excluded bool) {
	if permitted {
		c.PermittedDNSDomains = original.PermittedDNSDomains
		c.PermittedIPRanges = original.PermittedIPRanges
		c.PermittedEmailAddresses = original.PermittedEmailAddresses
		c.PermittedURIDomains = original.PermittedURIDomains
	}
	if excluded {
		c.ExcludedDNSDomains = original.ExcludedDNSDomains
		c.ExcludedIPRanges = original.ExcludedIPRanges
		c.ExcludedEmailAddresses = original.ExcludedEmailAddresses
		c.ExcludedURIDomains = original.ExcludedURIDomains
	}
}

func keepPolicies(c, original *x509.Certificate) {
	c.Policies, c.PolicyMappings = original.Policies, original.PolicyMappings
	c.RequireExplicitPolicy, c.RequireExplicitPolicyZero = original.RequireExplicitPolicy, original.RequireExplicitPolicyZero
	c.InhibitPolicyMapping, c.InhibitPolicyMappingZero = original.InhibitPolicyMapping, original.InhibitPolicyMappingZero
	c.InhibitAnyPolicy, c.InhibitAnyPolicyZero = original.InhibitAnyPolicy, original.InhibitAnyPolicyZero
}

// keepAllButIgnored puts everything back that the policy does not ignore. The moment is brought to the copy's
// validity rather than handed to Verify, which takes now.
func (p *policy) keepAllButIgnored(c, original *x509.Certificate, now time.Time) {
	ignored := p.ignored(0, 0)
	c.UnhandledCriticalExtensions = original.UnhandledCriticalExtensions
	if ignored&StatusNotTimeValid == 0 && (now.Before(original.NotBefore) || now.After(original.NotAfter)) {
		c.NotAfter = time.Time{}
	}
	if ignored&StatusInvalidBasicConstraints == 0 {
		c.BasicConstraintsValid, c.IsCA = original.BasicConstraintsValid, original.IsCA
		c.MaxPathLen, c.MaxPathLenZero = original.MaxPathLen, original.MaxPathLenZero
	}
	if ignored&StatusNotValidForUsage == 0 {
		c.KeyUsage = original.KeyUsage
	}
	if ignored&StatusInvalidNameConstraints == 0 {
		keepNames(c, original)
		keepConstraints(c, original, true, true)
	}
	if ignored&StatusNoIssuanceChainPolicy == 0 {
		keepPolicies(c, original)
	}
}
