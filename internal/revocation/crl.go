package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/sslstream/sslstream/internal/fetch"
)

const maxCRL = fetch.MaxBody

// maxSerial is the most octets that a serial number may have (RFC 5280, Section 4.1.2.2), and one for its sign.
const maxSerial = 21

// revocationList is a CRL that is signed by its issuer and complete, in little room: some list millions.
type revocationList struct {
	made        time.Time // thisUpdate
	number      *big.Int  // of lists made at the same time the later one has a higher one; 0 where there is none
	from, until time.Time
	onlyUser    bool // it says nothing of CAs
	onlyCA      bool // it says nothing but of CAs
	serials     []byte
	entries     []revokedEntry // by serial number
}

type revokedEntry struct {
	offset uint32 // in serials
	length uint8
	reason uint8
	at     int64 // Unix time
}

// The extensions of CRLs and their entries (RFC 5280, Section 5) that are understood.
var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidCRLNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKeyID           = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidReasonCode               = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidityDate           = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidHoldInstruction          = asn1.ObjectIdentifier{2, 5, 29, 23}
)

// parseCRL makes a list of a DER CRL that was had from url and is the issuer's own. Whether it counts now is left to who asks.
func parseCRL(der []byte, url string, issuer *x509.Certificate) (*revocationList, error) {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("is no usable CRL: %s", shortened(err.Error()))
	}
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return nil, errors.New("is another issuer's")
	}
	if len(crl.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(crl.AuthorityKeyId, issuer.SubjectKeyId) {
		return nil, errors.New("is made with another key than the issuer's")
	}
	if err := strong(crl.SignatureAlgorithm); err != nil {
		return nil, err
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		var forbidden x509.ConstraintViolationError
		if errors.As(err, &forbidden) {
			return nil, fmt.Errorf("is signed with a key that may not sign CRLs: %w", err)
		}
		return nil, fmt.Errorf("is not signed by the certificate's issuer: %w", err)
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("does not say until when it counts")
	}
	if crl.NextUpdate.Before(crl.ThisUpdate) {
		return nil, errors.New("runs out before it begins")
	}
	list := &revocationList{made: crl.ThisUpdate, number: new(big.Int), from: crl.ThisUpdate.Add(-clockSkew), until: crl.NextUpdate}
	if crl.Number != nil {
		list.number = crl.Number
	}
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidDeltaCRLIndicator):
			return nil, errors.New("lists only what has changed")
		case e.Id.Equal(oidIssuingDistributionPoint):
			if err := list.setScope(e.Value, url); err != nil {
				return nil, err
			}
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKeyID):
			return nil, fmt.Errorf("has the critical extension %v, which is not understood", e.Id)
		}
	}
	if err := list.fill(crl.RevokedCertificateEntries); err != nil {
		return nil, err
	}
	return list, nil
}

// fill packs the entries.
func (l *revocationList) fill(entries []x509.RevocationListEntry) error {
	l.entries = make([]revokedEntry, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		for _, x := range e.Extensions {
			if x.Critical && !x.Id.Equal(oidReasonCode) && !x.Id.Equal(oidInvalidityDate) && !x.Id.Equal(oidHoldInstruction) {
				return fmt.Errorf("has an entry with the critical extension %v, which is not understood", x.Id)
			}
		}
		serial := serialOf(e.SerialNumber)
		if len(serial) > maxSerial {
			continue // of a length that is not looked for
		}
		l.entries = append(l.entries, revokedEntry{
			offset: uint32(len(l.serials)),
			length: uint8(len(serial)),
			reason: uint8(min(max(e.ReasonCode, 0), 255)),
			at:     e.RevocationTime.Unix(),
		})
		l.serials = append(l.serials, serial...)
	}
	l.serials = slices.Clip(l.serials)
	slices.SortFunc(l.entries, func(a, b revokedEntry) int { return bytes.Compare(l.serial(a), l.serial(b)) })
	return nil
}

// serialOf is a serial number as octets, its sign first: two numbers have the same only if they are equal.
func serialOf(n *big.Int) []byte {
	return append([]byte{byte(n.Sign())}, n.Bytes()...)
}

func (l *revocationList) serial(e revokedEntry) []byte {
	return l.serials[e.offset : e.offset+uint32(e.length)]
}

func (l *revocationList) counts(now time.Time) bool {
	return !now.Before(l.from) && !now.After(l.until)
}

func (l *revocationList) size() int { return len(l.serials) + 24*len(l.entries) }

// look says what the list says of a certificate: good where it is not in it. The error says that the list is not about such
// certificates, or ambiguous.
func (l *revocationList) look(cert *x509.Certificate) (*Answer, error) {
	ca := cert.BasicConstraintsValid && cert.IsCA
	switch {
	case l.onlyUser && ca:
		return nil, errors.New("is for end certificates only")
	case l.onlyCA && !ca:
		return nil, errors.New("is for CA certificates only")
	}
	serial := serialOf(cert.SerialNumber)
	if len(serial) > maxSerial {
		return nil, errors.New("cannot be searched: the certificate's serial number is too long")
	}
	a := &Answer{Status: Good, Made: l.made, From: l.from, Until: l.until}
	at, found := slices.BinarySearchFunc(l.entries, serial, func(e revokedEntry, s []byte) int { return bytes.Compare(l.serial(e), s) })
	if found {
		e := l.entries[at]
		a.Status, a.Reason, a.RevokedAt = Revoked, int(e.reason), time.Unix(e.at, 0)
	}
	return a, nil
}

// setScope reads the issuing distribution point (RFC 5280, Section 5.2.5). A list that is not the whole truth about the
// certificates it is for does not count.
func (l *revocationList) setScope(der []byte, url string) error {
	malformed := errors.New("has a distribution point that does not parse")
	input := cryptobyte.String(der)
	var point cryptobyte.String
	if !input.ReadASN1(&point, cryptobyte_asn1.SEQUENCE) || !input.Empty() {
		return malformed
	}
	var name cryptobyte.String
	var named bool
	if !point.ReadOptionalASN1(&name, &named, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) {
		return malformed
	}
	var indirect, onlyAttributes, someReasons bool
	var reasons cryptobyte.String
	flag := func(out *bool, tag uint8) bool { return readOptionalFlag(&point, out, tag) }
	if !flag(&l.onlyUser, 1) || !flag(&l.onlyCA, 2) ||
		!point.ReadOptionalASN1(&reasons, &someReasons, cryptobyte_asn1.Tag(3).ContextSpecific()) ||
		!flag(&indirect, 4) || !flag(&onlyAttributes, 5) || !point.Empty() {
		return malformed
	}
	switch {
	case someReasons:
		return errors.New("is for some reasons only")
	case indirect:
		return errors.New("is an indirect one")
	case onlyAttributes:
		return errors.New("is for attribute certificates only")
	case l.onlyUser && l.onlyCA:
		return errors.New("is for no certificates at all")
	}
	if named && !namesURL(name, url) {
		return errors.New("is another distribution point's")
	}
	return nil
}

// readOptionalFlag reads an implicitly tagged BOOLEAN that is false by default.
func readOptionalFlag(s *cryptobyte.String, out *bool, tag uint8) bool {
	var value cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&value, &present, cryptobyte_asn1.Tag(tag).ContextSpecific()) {
		return false
	}
	if !present {
		return true
	}
	if len(value) != 1 || value[0] != 0 && value[0] != 0xff {
		return false
	}
	*out = value[0] != 0
	return true
}

// namesURL says whether a DistributionPointName is, among others, this URL.
func namesURL(name cryptobyte.String, url string) bool {
	var full cryptobyte.String
	if !name.ReadASN1(&full, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) {
		return false // relative to the CRL's issuer
	}
	for !full.Empty() {
		var one cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !full.ReadAnyASN1(&one, &tag) {
			return false
		}
		if tag == cryptobyte_asn1.Tag(6).ContextSpecific() && string(one) == url {
			return true
		}
	}
	return false
}

// askCRL has the list at url say what it says, fetched once for all who want it at the same time, and kept.
func (c *Checker) askCRL(ctx context.Context, about key, cert, issuer *x509.Certificate, url string) (*Answer, error) {
	where := listKey(url, issuer)
	q := question{client: c.Client, url: url, about: where}
	asked := time.Now()
	list, err := c.Cache.fetching.Do(ctx, q, func(ctx context.Context) (*revocationList, error) {
		// One may have come since memory was looked at. Where it counts now, nothing better is to be had for another moment either;
		// but what something later bars, a later list may not have.
		for _, known := range c.Cache.lists(where) {
			if c.usable(known, c.Now, about, cert, issuer) || c.usable(known, time.Now(), about, cert, issuer) {
				return known, nil
			}
		}
		if f := c.Cache.failed(q); f != nil {
			return nil, f.err
		}
		began := time.Now()
		list, err := c.requestCRL(ctx, issuer, url)
		if err != nil {
			c.Cache.rememberFailure(ctx, q, began, err)
			return nil, err
		}
		c.Cache.rememberList(where, list)
		// What does not count now, and not only at the moment that is asked about, is a failure.
		if now := time.Now(); !c.usable(list, now, about, cert, issuer) {
			c.Cache.rememberFailure(ctx, q, began, useless(&Answer{Made: list.made, From: list.from, Until: list.until}, now))
		}
		return list, nil
	})
	c.Cache.rememberSilence(ctx, q, asked, err)
	if err != nil {
		return nil, err
	}
	answer, err := list.look(cert)
	if err != nil {
		return nil, fmt.Errorf("the answer %w", err)
	}
	return answer, nil
}

// usable says whether a list counts at a moment, and nothing later is known of the certificate that bars it.
func (c *Checker) usable(list *revocationList, at time.Time, about key, cert, issuer *x509.Certificate) bool {
	a, err := list.look(cert)
	return list.counts(at) && (err != nil || c.decide(at, a, about, cert, issuer) != nil)
}

// rememberList keeps a list, unless there is a later one; an earlier one is kept beside that, where that has run out: it does not
// have what was revoked in between. One from the future waits until it is asked for again.
func (c *Cache) rememberList(where key, list *revocationList) {
	now := time.Now()
	if now.Before(list.from) {
		return
	}
	later := true
	c.memory.Replace(where, list, weigh(list), func(old any) bool {
		was, ok := old.(*revocationList)
		later = !ok || list.made.After(was.made) || list.made.Equal(was.made) && list.number.Cmp(was.number) > 0
		return later
	})
	if !later && list.counts(now) {
		c.put(earlier(where), list)
	}
}

// lists are those that are remembered of one place, the latest first.
func (c *Cache) lists(where key) (all []*revocationList) {
	for _, k := range []key{where, earlier(where)} {
		if known, ok := c.memory.Get(k).(*revocationList); ok {
			all = append(all, known)
		}
	}
	return all
}

// earlier is where a list is kept that is not the latest.
func earlier(where key) key { return keyOf([]byte("earlier"), where[:]) }

func (c *Checker) requestCRL(ctx context.Context, issuer *x509.Certificate, url string) (*revocationList, error) {
	der, err := fetch.Do(ctx, c.Client, c.Budget, fetch.Request{URL: url, Accept: "application/pkix-crl, */*;q=0.1", MaxBytes: maxCRL})
	if err != nil {
		return nil, err
	}
	list, err := parseCRL(der, url, issuer)
	if err != nil {
		return nil, fmt.Errorf("the answer %w", err)
	}
	return list, nil
}
