"""What the shop sells. Prices are in pence, so that sums stay exact."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    slug: str
    name: str
    kind: str
    blurb: str
    pence: int


PRODUCTS = {
    product.slug: product
    for product in (
        Product("espresso", "Night Shift", "Espresso beans, 250 g", "Dark chocolate, black cherry.", 950),
        Product("filter", "Slow Morning", "Filter beans, 250 g", "Apricot, honey, long light.", 1100),
        Product("decaf", "Soft Landing", "Decaf beans, 250 g", "Toffee and toasted almond.", 1050),
        Product("mug", "Harbour mug", "Stoneware, 300 ml", "Holds its heat, fits the hand.", 1400),
        Product(
            "dripper", "Cloud dripper", "Ceramic, one to two cups", "A clean cup in three minutes.", 2200
        ),
        Product("kettle", "Heron kettle", "Gooseneck, 0.8 l", "Pours where you look.", 6400),
        Product("grinder", "Pocket mill", "Hand grinder, steel burrs", "Thirty turns to the cup.", 4800),
        Product("biscuits", "Oat biscuits", "Tin of twelve", "Browned butter, sea salt.", 600),
    )
}


def pounds(pence: int) -> str:
    return f"£{pence / 100:,.2f}"
