package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream/internal/fetch"
)

const (
	maxOCSP = 64 << 10 // bytes of a response
	// maxEmbedded is how many certificates in a response are looked at.
	maxEmbedded = 8
	// maxRSA is how many bits an RSA key in one may have, as in crypto/tls: checking a signature with a larger one, which anybody can make
	// up, takes long, and no context ends it.
	maxRSA = 8192
	// maxGET is how long the path of a GET may become (RFC 6960, Appendix A.1); longer requests are posted.
	maxGET = 255
)

// parseOCSP makes an answer of a DER response that is signed by whom it must be. x/crypto/ocsp parses it; what
// else makes it count is checked here. Whether it counts now is left to who asks.
func parseOCSP(der []byte, cert, issuer *x509.Certificate) (*Answer, error) {
	if len(der) > maxOCSP {
		return nil, fmt.Errorf("is no usable OCSP response: it has %d bytes, and %d are possible", len(der), maxOCSP)
	}
	bare, embedded, err := withoutCertificates(der)
	if err != nil {
		return nil, err
	}
	response, err := ocsp.ParseResponseForCert(bare, cert, nil)
	if err != nil {
		return nil, fmt.Errorf("is no usable OCSP response: %s", shortened(err.Error()))
	}
	if err := checkResponseData(response.TBSResponseData, cert, issuer); err != nil {
		return nil, err
	}
	signer, err := responder(response, issuer, embedded)
	if err != nil {
		return nil, err
	}
	a := &Answer{Made: response.ThisUpdate, From: response.ThisUpdate.Add(-clockSkew), Until: response.NextUpdate, Raw: bytes.Clone(der)}
	if a.Until.IsZero() {
		a.Until = response.ThisUpdate.Add(openEnded)
	}
	if a.Until.Before(response.ThisUpdate) {
		return nil, errors.New("runs out before it begins")
	}
	if signer != issuer { // an answer counts no longer than its responder's certificate
		if signer.NotBefore.After(a.From) {
			a.From = signer.NotBefore
		}
		if signer.NotAfter.Before(a.Until) {
			a.Until = signer.NotAfter
		}
	}
	switch response.Status {
	case ocsp.Good:
		a.Status = Good
	case ocsp.Revoked:
		a.Status, a.RevokedAt, a.Reason = Revoked, response.RevokedAt, response.RevocationReason
	case ocsp.Unknown:
		a.Status = Unknown
	default:
		return nil, fmt.Errorf("has the unknown status %d", response.Status)
	}
	return a, nil
}

// withoutCertificates takes the certificates out of a response. The parser would check the response's signature with the key
// in the first one, whoever made it, before anybody has asked whose it is.
func withoutCertificates(der []byte) (bare []byte, embedded [][]byte, err error) {
	var response struct {
		Status asn1.Enumerated
		Basic  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	if rest, err := asn1.Unmarshal(der, &response); err != nil || len(rest) > 0 || response.Status != asn1.Enumerated(ocsp.Success) {
		return der, nil, nil // of which the parser says what it is
	}
	var basic struct {
		Data, Algorithm asn1.RawValue
		Signature       asn1.BitString
		Certificates    []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if rest, err := asn1.Unmarshal(response.Basic.Response, &basic); err != nil || len(rest) > 0 {
		return nil, nil, errors.New("is no usable OCSP response: it does not parse")
	}
	for _, c := range basic.Certificates[:min(len(basic.Certificates), maxEmbedded)] {
		embedded = append(embedded, c.FullBytes)
	}
	basic.Certificates = nil
	if response.Basic.Response, err = asn1.Marshal(basic); err == nil {
		bare, err = asn1.Marshal(response)
	}
	return bare, embedded, err
}

// responder is who signed the response: the issuer itself, or who has a certificate from it for that (RFC 6960, Section
// 4.2.2.2), which is embedded in the response. What is embedded and is not from the issuer has no signature checked by its key.
func responder(response *ocsp.Response, issuer *x509.Certificate, embedded [][]byte) (signer *x509.Certificate, err error) {
	if err := strong(response.SignatureAlgorithm); err != nil {
		return nil, err
	}
	failed := errors.New("is not signed by the certificate's issuer, nor does it have the certificate of its responder")
	if isResponder(response, issuer) {
		err := response.CheckSignatureFrom(issuer)
		if err == nil {
			return issuer, nil
		}
		failed = fmt.Errorf("is not signed by the certificate's issuer: %w", err)
	}
	for _, der := range embedded {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			failed = fmt.Errorf("has a certificate that does not parse: %s", shortened(err.Error()))
			continue
		}
		if !isResponder(response, c) || c.Equal(issuer) {
			continue
		}
		name := shortened(c.Subject.String())
		if err := isDelegate(c, issuer); err != nil {
			failed = fmt.Errorf("is from %s, which is no delegate of the certificate's issuer: %w", name, err)
		} else if err := response.CheckSignatureFrom(c); err != nil {
			failed = fmt.Errorf("is not signed by %s: %w", name, err)
		} else if signer == nil || c.NotAfter.After(signer.NotAfter) { // it may be there twice, once renewed
			signer = c
		}
	}
	if signer == nil {
		return nil, failed
	}
	return signer, nil
}

// isDelegate checks that the issuer lets signer sign OCSP responses.
func isDelegate(signer, issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(signer.RawIssuer, issuer.RawSubject):
		return errors.New("its certificate is another issuer's")
	case !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("its certificate is not for signing OCSP responses")
	case signer.KeyUsage != 0 && signer.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage does not allow it")
	case len(signer.UnhandledCriticalExtensions) > 0:
		return errors.New("its certificate has a critical extension that is not understood")
	}
	if key, ok := signer.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
		return fmt.Errorf("its RSA key has %d bits, and %d are possible", key.N.BitLen(), maxRSA)
	}
	if err := strong(signer.SignatureAlgorithm); err != nil {
		return fmt.Errorf("its certificate %w", err)
	}
	if err := issuer.CheckSignature(signer.SignatureAlgorithm, signer.RawTBSCertificate, signer.Signature); err != nil {
		return fmt.Errorf("the issuer did not sign its certificate: %w", err)
	}
	return nil
}

// strong refuses signatures that crypto/x509 refuses in certificates, but not elsewhere.
func strong(algorithm x509.SignatureAlgorithm) error {
	switch algorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return fmt.Errorf("is signed too weakly: %w", x509.InsecureAlgorithmError(algorithm))
	}
	return nil
}

// isResponder reports whether c is of whom the response says that it is from.
func isResponder(response *ocsp.Response, c *x509.Certificate) bool {
	if len(response.RawResponderName) > 0 {
		return bytes.Equal(response.RawResponderName, c.RawSubject)
	}
	hash, err := hashOf(crypto.SHA1, publicKey(c))
	return err == nil && bytes.Equal(response.ResponderKeyHash, hash)
}

// publicKey is the bits of a certificate's key, as CertID and ResponderID hash them.
func publicKey(c *x509.Certificate) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil
	}
	return info.PublicKey.RightAlign()
}

// hashOf hashes what names somebody. SHA-1 does here also where FIPS 140-3 mode is enforced: nothing rests on it but which name
// is meant.
func hashOf(h crypto.Hash, data []byte) (sum []byte, err error) {
	if !h.Available() {
		return nil, x509.ErrUnsupportedAlgorithm
	}
	fips140.WithoutEnforcement(func() {
		hash := h.New()
		hash.Write(data)
		sum = hash.Sum(nil)
	})
	return sum, nil
}

// responseData is the part of RFC 6960's ResponseData that x/crypto/ocsp keeps to itself.
type responseData struct {
	Version     int           `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue // a choice
	ProducedAt  asn1.RawValue
	Responses   []struct {
		ID   certID
		Rest asn1.RawValue // the status
	}
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:1"`
}

type certID struct {
	Hash         pkix.AlgorithmIdentifier
	IssuerName   []byte
	IssuerKey    []byte
	SerialNumber asn1.RawValue
}

// hashes are those that a CertID may be made with.
var hashes = []struct {
	id   asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// checkResponseData checks that the response is about this issuer's certificate: the parser has looked at the
// serial number only, and took the first that fits. Another issuer's of the same number makes it ambiguous.
func checkResponseData(tbs []byte, cert, issuer *x509.Certificate) error {
	var data responseData
	if rest, err := asn1.Unmarshal(tbs, &data); err != nil || len(rest) > 0 {
		return errors.New("is no usable OCSP response: its data does not parse")
	}
	for _, e := range data.Extensions {
		if e.Critical {
			return fmt.Errorf("has the critical extension %v, which is not understood", e.Id)
		}
	}
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return err
	}
	found := 0
	for _, r := range data.Responses {
		if !bytes.Equal(r.ID.SerialNumber.FullBytes, serial) {
			continue
		}
		found++
		if err := r.ID.checkIssuer(issuer); err != nil {
			return err
		}
	}
	if found != 1 {
		return fmt.Errorf("is about the certificate %d times, not once", found)
	}
	return nil
}

func (id *certID) checkIssuer(issuer *x509.Certificate) error {
	for _, h := range hashes {
		if !id.Hash.Algorithm.Equal(h.id) {
			continue
		}
		name, err := hashOf(h.hash, issuer.RawSubject)
		if err != nil {
			return err
		}
		keyHash, err := hashOf(h.hash, publicKey(issuer))
		if err != nil {
			return err
		}
		if !bytes.Equal(id.IssuerName, name) || !bytes.Equal(id.IssuerKey, keyHash) {
			return errors.New("is about another issuer's certificate")
		}
		return nil
	}
	return errors.New("names the issuer by a hash that is not understood")
}

// requestFor is the DER request.
func requestFor(cert, issuer *x509.Certificate) (der []byte, err error) {
	fips140.WithoutEnforcement(func() { // SHA-1, which every responder knows; see hashOf
		der, err = ocsp.CreateRequest(cert, issuer, nil)
	})
	return der, err
}

// askOCSP has one responder answer, once for all who ask it the same at the same time. Unless the answer must be fresh, one that
// came since memory was looked at does, and so does a failure a moment ago.
func (c *Checker) askOCSP(ctx context.Context, about key, cert, issuer *x509.Certificate, responder string, fresh bool) (*Answer, error) {
	q := question{c.Client, responder, about, fresh}
	asked := time.Now()
	answer, err := c.Cache.asking.Do(ctx, q, func(ctx context.Context) (*Answer, error) {
		if fresh {
			return c.requestOCSP(ctx, about, cert, issuer, responder)
		}
		if known, ok := c.Cache.memory.Get(about).(*Answer); ok {
			// Where it counts now, nothing better is to be had for another moment either.
			if c.decide(c.Now, known, about, cert, issuer) == known || known.counts(time.Now()) && c.decide(time.Now(), known, about, cert, issuer) != nil {
				return known, nil
			}
		}
		if f := c.Cache.failed(q); f != nil {
			return f.answer, f.err
		}
		began := time.Now()
		answer, err := c.requestOCSP(ctx, about, cert, issuer, responder)
		if err != nil {
			c.Cache.rememberFailure(ctx, q, began, err)
			return nil, err
		}
		// What does not count now, and not only at the moment that is asked about, is a failure.
		now := time.Now()
		switch decided := c.decide(now, answer, about, cert, issuer); {
		case answer.Status == Unknown && answer.counts(now):
			c.Cache.put(q, &failure{until: now.Add(failureMemory), answer: answer})
		case decided == nil:
			c.Cache.rememberFailure(ctx, q, began, useless(answer, now))
		}
		return answer, nil
	})
	c.Cache.rememberSilence(ctx, q, asked, err)
	return answer, err
}

// requestOCSP asks by GET, which proxies can answer, where the request is short enough; and by POST where it is not, or where a GET
// has no usable answer: proxies may keep one beyond its end, or when there is a newer one.
func (c *Checker) requestOCSP(ctx context.Context, about key, cert, issuer *x509.Certificate, responder string) (*Answer, error) {
	request, err := requestFor(cert, issuer)
	if err != nil {
		return nil, fmt.Errorf("no request can be made: %w", err)
	}
	get := strings.TrimSuffix(responder, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(request))
	posted := fetch.Request{URL: responder, Body: request, ContentType: "application/ocsp-request"}
	attempts := []fetch.Request{{URL: get}, posted}
	if u, err := url.Parse(responder); err != nil || u.RawQuery != "" || len(get)-len(responder) > maxGET {
		attempts = attempts[1:]
	}
	var second *Answer
	for _, attempt := range attempts {
		attempt.Accept, attempt.MaxBytes = "application/ocsp-response", maxOCSP
		var body []byte
		if body, err = fetch.Do(ctx, c.Client, c.Budget, attempt); err != nil {
			var status *fetch.StatusError
			if errors.As(err, &status) {
				continue
			}
			break
		}
		answer, failed := parseOCSP(body, cert, issuer)
		if err = failed; err != nil {
			err = fmt.Errorf("the answer %w", err)
			continue
		}
		c.Cache.remember(about, answer)
		then := answer.Status == Unknown && answer.counts(c.Now) || c.decide(c.Now, answer, about, cert, issuer) == answer
		if then && (answer.Status == Unknown || c.decide(time.Now(), answer, about, cert, issuer) == answer) {
			return answer, nil
		}
		if second == nil || then || answer.counts(c.Now) && !second.counts(c.Now) {
			second = answer // who asks sees what is wrong with it; others may ask for another moment
		}
	}
	// That the asker's own time or budget was spent in between says nothing to others.
	if second != nil && ctx.Err() == nil && !errors.Is(err, fetch.ErrBudget) {
		return second, nil
	}
	return nil, err
}

// remember keeps an answer that is signed and says something. One from the future waits until it is asked for again.
func (c *Cache) remember(about key, a *Answer) {
	now := time.Now()
	if a.Status != Good && a.Status != Revoked || now.Before(a.From) {
		return
	}
	kept := *a
	c.memory.Replace(about, &kept, weigh(&kept), func(old any) bool {
		was, ok := old.(*Answer)
		if ok && was.onHold() && kept.onHold() && was.Until.After(kept.Until) {
			kept.Until = was.Until // the later one does not lift the other
		}
		return !ok || kept.replaces(was, now)
	})
}

// replaces says whether the answer is to be remembered instead of another one: the later one is, and of two that are as late a
// revocation. But what has run out and says good makes room for what counts, not the other way round; what says on hold makes room for
// good only where that counts; and a revocation for good makes none for on hold.
func (a *Answer) replaces(was *Answer, now time.Time) bool {
	switch {
	case a.Status == Revoked && !a.onHold() && (was.Status == Good || was.onHold()):
		return true
	case a.onHold() && was.Status == Revoked && !was.onHold():
		return false
	case a.Status == Good && !a.counts(now) && (was.Status == Revoked || was.counts(now)):
		return false
	case was.Status == Good && !was.counts(now) && a.counts(now):
		return true
	}
	return a.Made.After(was.Made) || a.Made.Equal(was.Made) && (was.Status != Revoked || a.Status == Revoked)
}

// Staple has the certificate's responders say that it is good, one after the other and the one at index first before the
// others, until one does or says that it is revoked; it asks also those that failed a moment ago. It returns the answer, whose Raw
// is what to staple, and the index of the responder that gave it.
func (c *Checker) Staple(ctx context.Context, cert, issuer *x509.Certificate, first int) (*Answer, int, error) {
	about := certKey(cert, issuer)
	responders := services(cert.OCSPServer)
	if len(responders) == 0 {
		return nil, 0, errors.New("the certificate names no OCSP responder that can be asked over http or https")
	}
	var failures []error
	for i := range responders {
		at := (first + i) % len(responders)
		answer, err := c.askOCSP(ctx, about, cert, issuer, responders[at], true)
		switch {
		case err != nil:
		case answer.Status != Good:
			err = fmt.Errorf("the certificate is %v", answer.Status)
		case !answer.counts(c.Now):
			err = fmt.Errorf("the answer %w", answer.period(c.Now))
		default:
			if decided := c.decide(c.Now, answer, about, cert, issuer); decided != nil && decided.Status == Good {
				return answer, at, nil
			}
			err = fmt.Errorf("the answer %w", superseded(answer))
		}
		failures = append(failures, fmt.Errorf("OCSP by %s: %w", shortened(responders[at]), err))
		if answer == nil || answer.Status != Revoked {
			continue
		}
		if decided := c.decide(c.Now, answer, about, cert, issuer); decided == nil || decided.Status == Revoked {
			break // unless somebody knows later that it is over
		}
	}
	return nil, 0, errors.Join(failures...)
}
