package sslstream

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file answers what is wrong with each certificate of a chain. crypto/x509 builds the paths and has the
// say on what is valid, but reports one error only. So a chain that it accepts costs one Verify, and one that it
// refuses is taken apart: paths are found with copies of the certificates that cannot fail, and each check is then
// made on its own.

// Bounds on the work that a refused chain can cause: the peer chooses its certificates before it has proved
// that it holds their key.
const (
	maxChainPaths      = 8
	maxChainLength     = 10
	maxSignatureChecks = 500 // over all paths of one verdict; each Verify has a bound of 100 of its own
)

var errTooMuchWork = errors.New("sslstream: the certificates sent would take too many signature checks")

// build finds the best chain for leaf and says what is wrong with it. sent are the certificates that came
// with it, in any order. The second result is what crypto/tls calls verified chains: empty unless the chain is valid.
func (p *policy) build(v *validation, leaf *x509.Certificate, sent []*x509.Certificate, now time.Time) (*Chain, [][]*x509.Certificate) {
	if !p.at.IsZero() {
		now = p.at
	}
	var key chainKey
	if p.memo != nil {
		key = keyOf(leaf, sent)
	}
	var verified [][]*x509.Certificate
	if v.resumed {
		verified = p.memo.recall(key, now)
	}
	var best examined
	if len(verified) == 0 {
		if verified = p.verify(leaf, sent, now); len(verified) == 0 {
			best = p.explain(leaf, sent, now, 0)
			if p.download {
				verified = p.completed(v, &best, leaf, sent, now)
			}
		}
		if len(verified) > 0 {
			p.memo.store(key, verified)
		}
	}
	switch {
	case len(verified) > 0 && p.revocationMode != RevocationNoCheck:
		return v.checkAll(p, verified, now)
	case len(verified) > 0:
		return chainOf(verified[0]), verified
	case p.revocationMode != RevocationNoCheck:
		v.check(p, best.chain, best.path.end, now)
	}
	if len(best.chain.Status) > 0 {
		return best.chain, nil
	}
	return best.chain, [][]*x509.Certificate{best.path.certs}
}

// chainOf is a chain with nothing against it.
func chainOf(certs []*x509.Certificate) *Chain {
	chain := &Chain{Elements: make([]ChainElement, len(certs))}
	for i, c := range certs {
		chain.Elements[i].Certificate = c
	}
	return chain
}

// verify is the fast path: every chain in which nothing at all is wrong.
func (p *policy) verify(leaf *x509.Certificate, sent []*x509.Certificate, now time.Time) [][]*x509.Certificate {
	opts := x509.VerifyOptions{
		Roots:       p.roots,
		CurrentTime: now,
		// Any, because a chain must be good for all usages asked for and Verify is content with one.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if len(sent)+len(p.extra) > 0 {
		opts.Intermediates = x509.NewCertPool()
		for _, c := range sent {
			opts.Intermediates.AddCert(c)
		}
		for _, c := range p.extra {
			opts.Intermediates.AddCert(c)
		}
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return nil
	}
	f := finder{policy: p}
	return slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		for _, c := range chain {
			if forbiddenUsage(c, p.usages) != nil || !allowedInFIPSMode(c) {
				return true
			}
		}
		return slices.ContainsFunc(p.policies, func(oid x509.OID) bool { return !f.grants(chain, oid) })
	})
}

// examined is a path with what is wrong with it.
type examined struct {
	chain  *Chain
	path   foundPath
	checks int // signatures checked to find it
}

// explain is build's slow path: of all paths that can be found the one with the least wrong. checks is what the verdict has cost
// so far.
func (p *policy) explain(leaf *x509.Certificate, sent []*x509.Certificate, now time.Time, checks int) examined {
	f := finder{policy: p, now: now, checks: checks}
	for _, c := range slices.Concat(sent, p.extra) {
		if !f.known(c) {
			f.candidates = append(f.candidates, c)
		}
	}
	f.extend([]*x509.Certificate{leaf})

	var best examined
	bestCount := [3]int{}
	for _, path := range f.paths {
		chain := f.examine(path)
		listed := 0
		for _, e := range chain.Elements {
			listed += len(e.Status)
		}
		count := [3]int{len(chain.Status), listed, int(path.end)}
		if best.chain == nil || slices.Compare(count[:], bestCount[:]) < 0 {
			best, bestCount = examined{chain: chain, path: path}, count
		}
	}
	best.checks = f.checks
	return best
}

// examine says everything that is wrong with each certificate of a path.
func (f *finder) examine(path foundPath) *Chain {
	p, now := f.policy, f.now
	chain := chainOf(path.certs)
	add := func(i int, flag ChainStatusFlags, err error, detail string, args ...any) {
		chain.Elements[i].add(flag, fmt.Sprintf(detail, args...), err)
	}
	invalid := func(i int, reason x509.InvalidReason, detail string) error {
		return x509.CertificateInvalidError{Cert: path.certs[i], Reason: reason, Detail: detail}
	}

	last := len(path.certs) - 1
	intact := true // every link's signature is what crypto/x509 accepts
	for i, c := range path.certs {
		trustedRoot := i == last && path.end == endTrusted
		switch {
		case now.Before(c.NotBefore):
			add(i, StatusNotTimeValid, invalid(i, x509.Expired, ""), "not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
		case now.After(c.NotAfter):
			add(i, StatusNotTimeValid, invalid(i, x509.Expired, ""), "expired on %s", c.NotAfter.UTC().Format(time.RFC3339))
		}

		if !trustedRoot && weakSignature(c) {
			add(i, StatusHasWeakSignature, x509.InsecureAlgorithmError(c.SignatureAlgorithm), "signed with %v", c.SignatureAlgorithm)
			intact = false
		}
		issuer := c
		if i < last {
			issuer = path.certs[i+1]
		}
		if i < last || path.end == endSelfSigned {
			if err := checkSignature(c, issuer); err != nil {
				add(i, StatusNotSignatureValid, err, "not signed by the key of %s", certificateName(issuer))
				intact = false
			}
		}

		oldRoot := trustedRoot && c.Version < 3 // it cannot say what it is
		if i > 0 && !oldRoot && !(c.BasicConstraintsValid && c.IsCA) {
			add(i, StatusInvalidBasicConstraints, invalid(i, x509.NotAuthorizedToSign, ""), "issued a certificate but is no CA")
		}
		if i > 0 && c.BasicConstraintsValid && c.MaxPathLen >= 0 && i-1 > c.MaxPathLen {
			add(i, StatusInvalidBasicConstraints, invalid(i, x509.TooManyIntermediates, ""), "allows %d intermediates below it, there are %d", c.MaxPathLen, i-1)
		}
		if i > 0 && c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			add(i, StatusNotValidForUsage, invalid(i, x509.NotAuthorizedToSign, ""), "its key usage does not allow to sign certificates")
		}
		for _, u := range forbiddenUsage(c, p.usages) {
			add(i, StatusNotValidForUsage, invalid(i, x509.IncompatibleUsage, ""), "not for %v", u)
		}
		if len(c.UnhandledCriticalExtensions) > 0 {
			add(i, StatusHasNotSupportedCriticalExtension, x509.UnhandledCriticalExtension{}, "critical extension %v is not understood", c.UnhandledCriticalExtensions[0])
		}
		if !allowedInFIPSMode(c) {
			add(i, StatusHasWeakSignature, errors.New("sslstream: key not allowed in FIPS 140-3 mode"), "its %v key is not allowed in FIPS 140-3 mode", c.PublicKeyAlgorithm)
		}
	}

	// What only crypto/x509 can judge, and only where the signatures hold.
	if intact {
		f.examineNames(path.certs, add)
		if err := f.verifyPath(path.certs, keepPolicies); err != nil {
			add(0, StatusNoIssuanceChainPolicy, err, "the chain is not valid for any certificate policy, which its issuers demand")
		}
		for _, oid := range p.policies {
			if !f.grants(path.certs, oid) {
				add(0, StatusNotValidForUsage, invalid(0, x509.NoValidChains, "certificate policy "+oid.String()), "the chain is not valid for the certificate policy %v", oid)
			}
		}
	}

	unknown := x509.UnknownAuthorityError{Cert: path.certs[last]}
	switch path.end {
	case endSelfSigned:
		add(last, StatusUntrustedRoot, unknown, "self-signed and not in the trust store")
	case endWrongAnchor:
		if !weakSignature(path.certs[last]) { // of which nothing more can be said without the anchor
			add(last, StatusNotSignatureValid, unknown, "not signed by the key that the trust store has for %s", path.certs[last].Issuer)
		}
	case endCycle:
		add(last, StatusCyclic, unknown, "its issuers lead back to it")
		fallthrough
	case endNoIssuer:
		detail := "its issuer " + path.certs[last].Issuer.String() + " is missing"
		if urls := path.certs[last].IssuingCertificateURL; len(urls) > 0 {
			detail += "; it could be had from " + shortened(urls[0], maxURL)
		}
		add(last, StatusPartialChain, unknown, "%s", detail)
	}

	p.unite(chain, last)
	// An empty Status lets the peer in, so crypto/x509 must agree that nothing is wrong but what is ignored.
	if len(chain.Status) == 0 {
		if err := f.verifyPath(path.certs, func(c, original *x509.Certificate) { p.keepAllButIgnored(c, original, now) }); err != nil {
			add(0, StatusInvalidExtension, err, "%v", err)
			p.unite(chain, last)
		}
	}
	return chain
}

// unite makes the chain's Status from its elements', one entry a flag, without what is to be ignored.
func (p *policy) unite(chain *Chain, last int) {
	chain.Status = nil
	for i, e := range chain.Elements {
		for _, s := range e.Status {
			if s.Flag&p.ignored(i, last) != 0 {
				continue
			}
			at := slices.IndexFunc(chain.Status, func(u ChainStatus) bool { return u.Flag == s.Flag })
			if at < 0 {
				chain.Status = append(chain.Status, s)
				continue
			}
			u := &chain.Status[at]
			u.Detail += "; " + s.Detail
			u.Err = errors.Join(u.Err, s.Err)
		}
	}
}

// ignored is what the policy ignores on element i of a chain whose last element is last.
func (p *policy) ignored(i, last int) ChainStatusFlags {
	const revocation = StatusRevocationUnknown | StatusOfflineRevocation
	var flags ChainStatusFlags
	for _, f := range []struct {
		when VerificationFlags
		what ChainStatusFlags
	}{
		{IgnoreNotTimeValid, StatusNotTimeValid},
		{IgnoreInvalidBasicConstraints, StatusInvalidBasicConstraints},
		{AllowUnknownCertificateAuthority, StatusUntrustedRoot | StatusPartialChain},
		{IgnoreWrongUsage, StatusNotValidForUsage},
		{IgnoreInvalidName, StatusInvalidNameConstraints | StatusHasNotPermittedNameConstraint | StatusHasExcludedNameConstraint},
		{IgnoreInvalidPolicy, StatusNoIssuanceChainPolicy | StatusInvalidPolicyConstraints},
	} {
		if p.ignore&f.when != 0 {
			flags |= f.what
		}
	}
	switch {
	case i == 0:
		if p.ignore&IgnoreEndRevocationUnknown != 0 {
			flags |= revocation
		}
	case i == last:
		if p.ignore&IgnoreRootRevocationUnknown != 0 {
			flags |= revocation
		}
	case p.ignore&IgnoreCertificateAuthorityRevocationUnknown != 0:
		flags |= revocation
	}
	return flags
}

// examineNames finds the certificates whose names their issuers' constraints forbid (RFC 5280, Section
// 4.2.1.10). Verify does not say whose name it was, so it is asked for one pair of certificates at a time.
func (f *finder) examineNames(certs []*x509.Certificate, add func(int, ChainStatusFlags, error, string, ...any)) {
	all := f.verifyPath(certs, func(c, original *x509.Certificate) {
		keepNames(c, original)
		keepConstraints(c, original, true, true)
	})
	if all == nil {
		return
	}
	found := false
	for i, named := range certs {
		for _, issuer := range certs[i+1:] {
			check := func(permitted, excluded bool) error {
				return f.verifyPath(certs, func(c, original *x509.Certificate) {
					if original == named {
						keepNames(c, original)
					}
					if original == issuer {
						keepConstraints(c, original, permitted, excluded)
					}
				})
			}
			notPermitted, isExcluded := check(true, false), check(false, true)
			found = found || notPermitted != nil || isExcluded != nil
			if notPermitted != nil && isExcluded != nil && notPermitted.Error() == isExcluded.Error() {
				add(i, StatusInvalidNameConstraints, notPermitted, "a name cannot be compared with the constraints of %s", certificateName(issuer))
				continue
			}
			if notPermitted != nil {
				add(i, StatusHasNotPermittedNameConstraint, notPermitted, "%s does not permit a name in it", certificateName(issuer))
			}
			if isExcluded != nil {
				add(i, StatusHasExcludedNameConstraint, isExcluded, "%s excludes a name in it", certificateName(issuer))
			}
		}
	}
	if !found {
		add(0, StatusInvalidNameConstraints, all, "%v", all)
	}
}

// grants reports whether the path, whose last certificate is taken as the root, is valid for the certificate
// policy, mappings and constraints included. A leaf that demands an explicit policy makes Verify refuse a path whose
// policies do not reach one of those asked for.
func (f *finder) grants(certs []*x509.Certificate, oid x509.OID) bool {
	if len(certs) == 1 { // a leaf in the trust store: Verify looks at no policies then
		return slices.ContainsFunc(certs[0].Policies, func(has x509.OID) bool { return has.Equal(oid) || has.String() == "2.5.29.32.0" })
	}
	return f.verifyPath(certs, func(c, original *x509.Certificate) {
		keepPolicies(c, original)
		if original == certs[0] {
			c.RequireExplicitPolicy, c.RequireExplicitPolicyZero = 0, true
		}
	}, oid) == nil
}

// verifyPath asks Verify about one path, the last certificate of which it takes for a trusted root, with
// harmless copies of the certificates. keep puts back into a copy what is to be checked.
func (f *finder) verifyPath(certs []*x509.Certificate, keep func(copied, original *x509.Certificate), policies ...x509.OID) error {
	checks := 0 // Verify tries every namesake as an issuer
	for _, c := range certs {
		for _, issuer := range certs {
			if bytes.Equal(c.RawIssuer, issuer.RawSubject) {
				checks++
			}
		}
	}
	if !f.mayCheck(checks) {
		return errTooMuchWork
	}
	opts := x509.VerifyOptions{
		Roots:               x509.NewCertPool(),
		Intermediates:       x509.NewCertPool(),
		KeyUsages:           []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CertificatePolicies: policies,
	}
	var leaf *x509.Certificate
	for i, original := range certs {
		c := harmlessCopy(original)
		keep(c, original)
		if i == 0 {
			leaf = c
		}
		if i == len(certs)-1 {
			opts.Roots.AddCert(c)
		} else if i > 0 {
			opts.Intermediates.AddCert(c)
		}
	}
	_, err := leaf.Verify(opts)
	return err
}

// forbiddenUsage lists those of the usages that the certificate excludes: it excludes none where it names
// none, or any.
func forbiddenUsage(c *x509.Certificate, usages []x509.ExtKeyUsage) []x509.ExtKeyUsage {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	var forbidden []x509.ExtKeyUsage
	for _, u := range usages {
		if u != x509.ExtKeyUsageAny && !slices.Contains(c.ExtKeyUsage, u) {
			forbidden = append(forbidden, u)
		}
	}
	return forbidden
}

// allowedInFIPSMode is crypto/tls's own rule for the certificates of a chain in FIPS 140-3 mode. crypto/tls
// applies it only to chains that it verified itself.
func allowedInFIPSMode(c *x509.Certificate) bool {
	if !fips140.Enabled() {
		return true
	}
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return true
	}
	return false
}
