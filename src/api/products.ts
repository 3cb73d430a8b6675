/** /v1/products: where sign-ins return to, and who is told that a session ended. Written by keys of the whole deployment. */
import { z } from 'zod';
import {
  changeProduct,
  createProduct,
  listProducts,
  type ProductFacts,
  removeProduct,
} from '../tenant/product.ts';
import { conflict, forbidden, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { iso, text, time, uuid } from './schema.ts';

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

const address = z
  .string()
  .max(2000, 'must have at most 2,000 characters')
  .refine(
    isAddress,
    'must be an https URL without user, query and fragment (http only on this machine itself)',
  );

function isAddress(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.username || url.password || url.search || url.hash || value.includes('#')) return false;
  return url.protocol === 'https:' || (url.protocol === 'http:' && LOOPBACK.test(url.hostname));
}

const input = z.strictObject({
  name: text(100),
  returnTo: z
    .array(address)
    .min(1, 'must have at least one URL')
    .max(50, 'must have at most 50 URLs')
    .meta({ description: 'To which a sign-in may return: origin and path as they stand here, any query' }),
  logoutUrl: address.nullable().default(null).meta({
    description: 'Told of ended sessions by OpenID Connect Back-Channel Logout 1.0; null for none',
  }),
});

const productSchema = z
  .strictObject({
    id: uuid,
    name: z.string(),
    returnTo: z.array(z.string()),
    logoutUrl: z.string().nullable(),
    createdAt: time,
  })
  .meta({ id: 'Product' });

export function productRoutes({ db }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/products',
      id: 'createProduct',
      summary: 'Register a product',
      description: 'A sign-in returns only to registered URLs.',
      scope: 'products:write',
      body: input,
      answers: { 201: { description: 'The new product', schema: productSchema } },
      async handle({ principal, body }) {
        if (principal.tenantId !== null) return boundKey();
        const created = await createProduct(db, body);
        return created ? reply(201, shown(created)) : taken(body.name);
      },
    }),
    route({
      method: 'get',
      path: '/products',
      id: 'listProducts',
      summary: 'List products',
      scope: 'products:read',
      answers: {
        200: { description: 'All of them', schema: z.strictObject({ items: z.array(productSchema) }) },
      },
      handle: async () => reply(200, { items: (await listProducts(db)).map(shown) }),
    }),
    route({
      method: 'put',
      path: '/products/{product}',
      id: 'changeProduct',
      summary: 'Replace a product',
      scope: 'products:write',
      body: input,
      answers: { 200: { description: 'The product', schema: productSchema } },
      async handle({ principal, params, body }) {
        if (principal.tenantId !== null) return boundKey();
        const changed = await changeProduct(db, params.product, body);
        if (changed === 'taken') return taken(body.name);
        return changed ? reply(200, shown(changed)) : notFound('product');
      },
    }),
    route({
      method: 'delete',
      path: '/products/{product}',
      id: 'deleteProduct',
      summary: 'Delete a product',
      description: 'Sessions that it began go on; it is told of none any more.',
      scope: 'products:write',
      answers: { 204: { description: 'Done' } },
      async handle({ principal, params }) {
        if (principal.tenantId !== null) return boundKey();
        return (await removeProduct(db, params.product)) ? reply(204) : notFound('product');
      },
    }),
  ];
}

function boundKey() {
  return forbidden(
    'Products belong to the whole deployment. To change them, use a key that is not bound to one tenant.',
  );
}

function taken(name: string) {
  return conflict(
    'name-taken',
    `Another product is named "${name}". Choose another name. Nothing was written.`,
  );
}

function shown(product: ProductFacts) {
  return { ...product, createdAt: iso(product.createdAt) };
}
