/**
 * Why a sign-in did not come to its end: a reason for counting and for the audit trail, and words for the person in front
 * of the browser. What the words may not say: whether a tenant or a member exists, and anything that was received.
 */

export interface Words {
  status: number;
  /** What happened. */
  what: string;
  /** What to do next. */
  next: string;
}

const AGAIN = 'Go back to your application and sign in again.';
const ADMIN = "Tell your organisation's administrator, with the reason and the request id below.";
const PRODUCT = 'Tell the people who run your application, with the reason and the request id below.';
const IDP_SETTINGS =
  "Tell your organisation's administrator: the identity provider's answer does not fit this connection's settings.";

export const refusals = {
  // Beginning.
  unknown_sign_in: {
    status: 404,
    what: 'There is no sign-in at this address.',
    next: 'Check the address, or begin the sign-in from your application.',
  },
  return_not_allowed: {
    status: 400,
    what: 'The application asked to send you to an address that is not registered here.',
    next: `${PRODUCT} The address must be one of the product's returnTo addresses, exactly.`,
  },
  request_invalid: {
    status: 400,
    what: 'The request to sign in has a parameter that is not understood.',
    next: PRODUCT,
  },
  test_expired: {
    status: 400,
    what: 'This link to a test sign-in is not valid any more.',
    next: 'Make a new one: POST /v1/tenants/{tenant}/connections/{connection}/test.',
  },
  // The attempt.
  attempt_unknown: {
    status: 400,
    what: 'The identity provider sent you back with a sign-in that was not begun here.',
    next: AGAIN,
  },
  attempt_expired: { status: 400, what: 'The sign-in took longer than ten minutes.', next: AGAIN },
  attempt_used: {
    status: 400,
    what: 'This sign-in has been completed already; the page was perhaps loaded twice.',
    next: `If you are not signed in, ${AGAIN.charAt(0).toLowerCase()}${AGAIN.slice(1)}`,
  },
  attempt_other_browser: {
    status: 400,
    what: 'This sign-in was begun in another browser, or this browser keeps no cookies for this address.',
    next: `Allow cookies for this address. ${AGAIN}`,
  },
  attempt_other_connection: {
    status: 400,
    what: 'The answer came from another identity provider than the one that was asked.',
    next: `${AGAIN} If it happens again: ${ADMIN}`,
  },
  too_large: { status: 413, what: 'The answer of the identity provider is too large.', next: ADMIN },
  too_many_failures: {
    status: 429,
    what: 'Too many sign-ins from your network have failed.',
    next: 'Wait a minute and try again.',
  },
  // The identity provider.
  idp_denied: {
    status: 403,
    what: 'The identity provider did not let you sign in, or you cancelled.',
    next: `${AGAIN} If you should have access, ask your organisation's administrator to assign the application to you.`,
  },
  idp_error: {
    status: 502,
    what: 'The identity provider answered with an error.',
    next: `${AGAIN} If it happens again: ${ADMIN}`,
  },
  idp_unreachable: {
    status: 502,
    what: 'The identity provider did not answer.',
    next: `Try again in a minute. If it happens again: ${ADMIN}`,
  },
  idp_rejected_client: {
    status: 502,
    what: 'The identity provider did not accept the credentials of this connection.',
    next: `${ADMIN} The client secret or key has perhaps expired: PATCH the connection with a new one.`,
  },
  idp_answer_invalid: {
    status: 502,
    what: 'The answer of the identity provider is incomplete or malformed.',
    next: IDP_SETTINGS,
  },
  connection_broken: {
    status: 500,
    what: 'The stored settings of this connection cannot be used.',
    next: `${ADMIN} PATCH the connection with its config.`,
  },
  // What it says of the person.
  issuer_mismatch: {
    status: 400,
    what: 'The answer names another identity provider than the one that was asked.',
    next: IDP_SETTINGS,
  },
  audience_mismatch: {
    status: 400,
    what: 'The answer was made for another application.',
    next: IDP_SETTINGS,
  },
  nonce_mismatch: { status: 400, what: 'The answer belongs to another sign-in.', next: AGAIN },
  token_expired: {
    status: 400,
    what: 'The answer of the identity provider is not valid at this time.',
    next: `${AGAIN} If it happens again, the clocks of the two servers differ: ${ADMIN}`,
  },
  signature_invalid: {
    status: 400,
    what: 'The answer is not signed by the identity provider.',
    next: IDP_SETTINGS,
  },
  algorithm_not_allowed: {
    status: 400,
    what: 'The answer is not signed in a way that is accepted.',
    next: IDP_SETTINGS,
  },
  userinfo_mismatch: {
    status: 400,
    what: 'The identity provider contradicts itself about who you are.',
    next: ADMIN,
  },
  claim_missing: {
    status: 403,
    what: 'The account that you signed in with is not one of your organisation.',
    next: `Sign in with your organisation's account. If you did: ${ADMIN}`,
  },
  subject_invalid: {
    status: 400,
    what: 'The identity provider did not say who you are in a way that can be used.',
    next: IDP_SETTINGS,
  },
  claims_too_large: {
    status: 400,
    what: 'The identity provider said more about you than can be taken.',
    next: `${ADMIN} Send fewer claims, for example only the groups that are assigned to the application.`,
  },
  // SAML.
  unsolicited: {
    status: 400,
    what: 'The identity provider signed you in without having been asked, which this connection does not take.',
    next: 'Open your application and begin the sign-in there.',
  },
  message_malformed: {
    status: 400,
    what: 'What was sent here is not a SAML message that can be read.',
    next: `${AGAIN} If it happens again: ${ADMIN}`,
  },
  response_altered: {
    status: 400,
    what: 'The answer is not one that an identity provider sends: it was changed on its way.',
    next: `${AGAIN} If it happens again: ${ADMIN}`,
  },
  response_unsigned: {
    status: 400,
    what: 'The answer of the identity provider is not signed.',
    next: IDP_SETTINGS,
  },
  certificate_unknown: {
    status: 400,
    what: 'The answer is signed with a certificate that this connection does not know.',
    next: `${ADMIN} The identity provider has perhaps a new certificate: give the connection its new metadata.`,
  },
  assertion_encrypted: {
    status: 400,
    what: 'The answer of the identity provider is encrypted, which this connection does not take.',
    next: IDP_SETTINGS,
  },
  destination_mismatch: { status: 400, what: 'The answer was sent to another address.', next: IDP_SETTINGS },
  recipient_mismatch: { status: 400, what: 'The answer was made for another address.', next: IDP_SETTINGS },
  request_mismatch: { status: 400, what: 'The answer belongs to another sign-in.', next: AGAIN },
  assertion_not_yet_valid: {
    status: 400,
    what: 'The answer of the identity provider is not valid yet.',
    next: `The clocks of the two servers differ: ${ADMIN}`,
  },
  assertion_expired: {
    status: 400,
    what: 'The answer of the identity provider is not valid any more.',
    next: `${AGAIN} If it happens again, the clocks of the two servers differ: ${ADMIN}`,
  },
  assertion_replayed: {
    status: 400,
    what: 'The identity provider has said this once already; the page was perhaps loaded twice.',
    next: AGAIN,
  },
  subject_transient: {
    status: 400,
    what: 'The identity provider gives you another name at each sign-in, by which nobody can be recognised.',
    next: IDP_SETTINGS,
  },
  public_url_missing: {
    status: 500,
    what: 'This server has not been told its own address, which SAML answers are checked against.',
    next: `${PRODUCT} Set LOCKSTEP_PUBLIC_URL.`,
  },
  // Who may come in.
  deprovisioned: {
    status: 403,
    what: 'Your access to this organisation has ended.',
    next: "If that is wrong, ask your organisation's administrator.",
  },
  suspended: {
    status: 403,
    what: 'Your access to this organisation is suspended.',
    next: "Ask your organisation's administrator to activate your account in its directory.",
  },
  operator: {
    status: 403,
    what: 'Your access to this organisation was taken by an operator.',
    next: PRODUCT,
  },
  not_in_directory: {
    status: 403,
    what: "Your organisation's directory does not list you for this application.",
    next: "Ask your organisation's administrator to assign the application to you.",
  },
  disputed: {
    status: 403,
    what: 'Your name or e-mail address belongs to another account of this organisation.',
    next: ADMIN,
  },
  domain_not_allowed: {
    status: 403,
    what: 'Sign-ins with your e-mail address are not allowed here.',
    next: "Use your organisation's address, or ask its administrator.",
  },
  connection_not_allowed: {
    status: 403,
    what: 'Your organisation asks for sign-ins by another identity provider.',
    next: AGAIN,
  },
  connection_paused: {
    status: 403,
    what: 'This way to sign in is paused.',
    next: "Try again later, or ask your organisation's administrator.",
  },
  unknown_connection: {
    status: 404,
    what: 'This way to sign in is not there any more.',
    next: AGAIN,
  },
  unavailable: {
    status: 503,
    what: 'Signing in is not possible at the moment. Nothing was changed.',
    next: 'Try again in a few seconds.',
  },
  internal: {
    status: 500,
    what: 'Something went wrong on our side. Nothing was changed.',
    next: PRODUCT,
  },
} as const satisfies Record<string, Words>;

export type RefusalReason = keyof typeof refusals;
